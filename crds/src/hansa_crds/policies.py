"""What agents and tenants may do with tools: the parts of an Agent and a Tenant that narrow it."""

from typing import Annotated, Any

from msgspec import Meta

from hansa_crds.parts import Allowed, Destination, Part, ToolName


class ArgumentRule(Part, frozen=True, kw_only=True):
    """What the arguments of a call must obey beyond what the tool asks for; a call that does not is refused and never made."""

    tools: Annotated[
        tuple[ToolName, ...], Meta(max_length=64, description="Tools of the entry that it holds for; left out or empty: all of them.")
    ] = ()
    schema: Annotated[
        dict[str, Any] | None, Meta(description="JSON Schema that the arguments must obey; has a `type`. Write this or `cel`.")
    ] = None
    cel: Annotated[
        Annotated[str, Meta(min_length=1, max_length=2048)] | None,
        Meta(
            description=(
                "Expression of the Common Expression Language that must give true: `args` are the arguments, `tool` is the name. One that"
                " can't be evaluated refuses the call. Write this or `schema`."
            )
        ),
    ] = None
    message: Annotated[
        str, Meta(max_length=500, description="What the model is told of a call that breaks it; left out: what is wrong.")
    ] = ""


class CageBounds(Part, frozen=True, kw_only=True):
    """Bounds of programs that tools run in a cage; those of the operator hold as well."""

    seconds: Annotated[Annotated[float, Meta(ge=0.1, le=3600)] | None, Meta(description="Seconds after which a program is killed.")] = None
    memory_mebibytes: Annotated[
        Annotated[int, Meta(ge=16, le=1_048_576)] | None,
        Meta(description="Most memory of a program and all it begins, in MiB; above it all of it is killed."),
    ] = None
    network: Annotated[
        bool,
        Meta(
            description=(
                "True: programs may send requests through the egress door, by the proxy that `http_proxy` and `https_proxy` name; where"
                " to, `egress` and the tenant's list say. False: no network at all."
            )
        ),
    ] = False


class TenantAllowed(Part, frozen=True, kw_only=True):
    """What a tenant's agents may use. A list that is left out allows all; an empty one allows nothing."""

    models: Annotated[
        Annotated[tuple[Allowed, ...], Meta(max_length=256)] | None,
        Meta(description="Models as `provider/model`; `*` stands for any text, as in `openai/*`."),
    ] = None
    tools: Annotated[
        Annotated[tuple[Allowed, ...], Meta(max_length=256)] | None,
        Meta(description="Names of tools, of plugins and ToolServers alike; `*` stands for any text."),
    ] = None
    plugins: Annotated[
        Annotated[tuple[Allowed, ...], Meta(max_length=256)] | None,
        Meta(description="Plugins whose tools, runtimes and kinds of model providers may be used; `hansa plugins` lists them."),
    ] = None
    egress: Annotated[
        Annotated[tuple[Destination, ...], Meta(max_length=256)] | None,
        Meta(
            description=(
                "Hosts that requests of tools, ToolServers and model providers may go to. It narrows what the operator lets out: a private"
                " address needs the operator's list as well."
            )
        ),
    ] = None
