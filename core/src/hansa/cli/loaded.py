"""`hansa plugins`, `hansa tools`, `hansa models`: what this Hansa can do."""

from hansa.cli.client import Json, open_api, part
from hansa.cli.connection import Connection
from hansa.cli.output import Column, OutputFlag, Row, field, plain, say, show


def plugins(*, connection: Connection | None = None, output: OutputFlag = "table") -> int:
    """List plugins, what they bring, and which failed; status 1 when one did."""
    with open_api(connection or Connection()) as api:
        found: list[Json] = api.get("/v1/plugins")["data"]
    columns = (
        field("NAME", "name"),
        field("STATE", "state"),
        field("PACKAGE", "distribution"),
        field("VERSION", "version"),
        Column("PROVIDES", _provided),
    )
    show(found, columns, output)
    failed = [plugin for plugin in found if plugin.get("state") == "failed"]
    for plugin in failed:
        say(f"{plugin['name']} failed: {plugin.get('reason')}", style="red")
    return 1 if failed else 0


def tools(*, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """List the tools that agents may use."""
    with open_api(connection or Connection()) as api:
        columns = (field("NAME", "name"), field("PLUGIN", "plugin"), field("EFFECT", "effect"), field("DESCRIPTION", "description"))
        show(api.get("/v1/tools")["data"], columns, output)


def models(*, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """List the models that agents may use, and why one can't be used now."""
    with open_api(connection or Connection()) as api:
        columns = (
            field("REF", "ref"),
            Column("ALIASES", lambda row: ", ".join(row.get("aliases") or ()) or "-"),
            field("PLUGIN", "plugin"),
            field("USABLE", "usable"),
            field("REASON", "reason"),
        )
        show(api.get("/v1/models")["data"], columns, output)


def _provided(plugin: Row) -> str:
    provides = part(dict(plugin), "provides")
    return "; ".join(f"{kind}: {', '.join(plain(name) for name in names)}" for kind, names in provides.items() if names) or "-"
