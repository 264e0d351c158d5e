"""Tools: plain async functions with a declared effect, made into a registered `Tool` by the `@tool` decorator.

The JSON Schema comes from the signature through msgspec, the text from the docstring. Warning: the declared effect decides
what happens after a crash between intent and result, so declare it honestly.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, get_type_hints

import httpx2
import msgspec

from hansa_sdk.cage import Cage
from hansa_sdk.errors import PluginError


class Effect(StrEnum):
    """What a tool does to the world, and so what may be done again after a crash.

    READ and IDEMPOTENT are repeated; KEYED is repeated with the same idempotency key; UNSAFE is never repeated silently.
    """

    READ = "read"
    IDEMPOTENT = "idempotent"
    KEYED = "keyed"
    UNSAFE = "unsafe"


class ToolContext(Protocol):
    """What a tool may use of the platform. `settings` are the operator's `HANSA_TOOL_*` variables, prefix cut, lower case."""

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this call: pass it on where the other side understands one."""
        ...

    @property
    def workspace(self) -> Path:
        """A folder of this run alone; it exists."""
        ...

    @property
    def http(self) -> httpx2.AsyncClient:
        """The egress door: the only way out. It refuses private and unlisted addresses."""
        ...

    @property
    def cage(self) -> Cage:
        """Where programs run that nobody vouches for, over the workspace. A tool starts no such program in any other way."""
        ...

    @property
    def settings(self) -> Mapping[str, str]: ...

    async def secret(self, name: str) -> str:
        """A secret that the tool declares, as the agent's `spec.tools[].secrets` gives it, looked up now.

        Raises `ToolFailed` when the tool does not declare it, the agent gives none, or it can't be had. Send it where it belongs and
        nowhere else: what a tool answers and logs is cleaned of it, what it writes into files is not.
        """
        ...

    def now(self) -> datetime:
        """The time now, UTC."""
        ...


class Tool(msgspec.Struct, frozen=True):
    """A registered tool. `run(context, arguments)` returns JSON-able data.

    `arguments` is a Struct, into which a call's arguments are decoded strictly; or `dict`: then they are checked against
    `parameters`, a JSON Schema, and `run` takes them as they are. `untrusted`: its answers hold text that strangers wrote.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    effect: Effect
    arguments: type[Any]
    run: Callable[[ToolContext, Any], Awaitable[Any]]
    timeout: float = 30.0
    untrusted: bool = False
    secrets: tuple[str, ...] = ()
    """Names under which it asks its context for secrets."""


class ToolDefinitionError(PluginError):
    """A function can't be made into a tool; says which part of its signature is wrong."""

    code = "tool_definition"


def tool(
    *, effect: Effect | str, name: str | None = None, timeout: float = 30.0, untrusted: bool = False, secrets: tuple[str, ...] = ()
) -> Callable[[Callable[..., Awaitable[Any]]], Tool]:
    """Make a `Tool` of `async def f(context: ToolContext, *, a: int, b: str = "x") -> JSON`.

    Parameters after the first must be keyword-only and annotated; `Annotated[int, msgspec.Meta(ge=0, description="...")]`
    gives bounds and texts. The first paragraph of the docstring is the description. `timeout` is in seconds. `untrusted` says that
    answers hold text of strangers: what a run does after reading it can be made to need a person. `secrets` names what it asks its
    context for.
    Raises `ToolDefinitionError` when the signature can't be described.
    """

    def make(function: Callable[..., Awaitable[Any]]) -> Tool:
        tool_name = name or getattr(function, "__name__", "tool")
        arguments = _arguments_struct(tool_name, function)

        async def run(context: ToolContext, decoded: Any) -> Any:
            return await function(context, **{field: getattr(decoded, field) for field in arguments.__struct_fields__})

        return Tool(
            name=tool_name,
            description=_description(tool_name, function),
            parameters=_schema(arguments),
            effect=Effect(effect),
            arguments=arguments,
            run=run,
            timeout=timeout,
            untrusted=untrusted,
            secrets=secrets,
        )

    return make


def _description(tool_name: str, function: Callable[..., Any]) -> str:
    text = inspect.getdoc(function)
    if not text:
        raise ToolDefinitionError(f"tool {tool_name!r} has no docstring", hint="The model reads it: say what the tool does.")
    return " ".join(text.split("\n\n")[0].split())


def _arguments_struct(tool_name: str, function: Callable[..., Any]) -> type[msgspec.Struct]:
    if not inspect.iscoroutinefunction(function):
        raise ToolDefinitionError(f"tool {tool_name!r} is not async", hint="Write `async def`.")
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        raise ToolDefinitionError(f"tool {tool_name!r} takes no context", hint="Its first parameter is the ToolContext.")
    hints = get_type_hints(function, include_extras=True)
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for parameter in parameters[1:]:
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise ToolDefinitionError(
                f"tool {tool_name!r}: parameter {parameter.name!r} is not keyword-only", hint="Put a `*` after the context."
            )
        if parameter.name not in hints:
            raise ToolDefinitionError(f"tool {tool_name!r}: parameter {parameter.name!r} has no type")
        if parameter.default is inspect.Parameter.empty:
            fields.append((parameter.name, hints[parameter.name]))
        else:
            fields.append((parameter.name, hints[parameter.name], parameter.default))
    return msgspec.defstruct(f"{tool_name}_arguments", fields, frozen=True, kw_only=True, forbid_unknown_fields=True)


def _schema(arguments: type[msgspec.Struct]) -> dict[str, Any]:
    (schema,), components = msgspec.json.schema_components([arguments], ref_template="#/$defs/{name}")
    own = components.pop(str(schema["$ref"]).rsplit("/", 1)[-1])
    own.pop("title", None)
    return {**own, "$defs": components} if components else own
