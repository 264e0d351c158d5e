"""Tool servers: asked for their tools when they are applied, and called by the runs of agents that use them.

Turns what MCP says into what the rest of Hansa knows: a `ToolServerStatus`, or a `Tool` like that of a plugin. A server's own word
about the effects of its tools is not taken: `spec.effects` decides.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast
from uuid import UUID

import msgspec

from hansa import clock
from hansa.apply.model import KnownServer, LeftOut, ServerTool, ToolServerStatus
from hansa.egress.client import HttpClient
from hansa.egress.narrowing import narrowing_within
from hansa.errors import HansaError
from hansa.tenants.secrets.lookup import Lookup, passes
from hansa.tools.failures import ToolServerError, ToolServerRefused, ToolServerUnavailable
from hansa.tools.mcp import MAX_TOOLS, McpClient
from hansa.tools.schemas import flaw, mirrored_headers
from hansa_crds import ToolServer
from hansa_crds.parts import ToolName
from hansa_sdk import Effect, Tool, ToolContext, ToolFailed

DISCOVERY_SECONDS = 10.0
CALL_SECONDS = 60.0
MAX_STATUS_BYTES = 524_288
"""Of all tools of one server together: the model is shown them, and every run that uses them loads them."""

_MAX_DESCRIPTION = 4096
_MAX_FAILURE = 8192


class _Listed(msgspec.Struct, frozen=True):
    """As much of a tool in the answer to tools/list as is used."""

    name: ToolName
    inputSchema: dict[str, Any]
    description: str = ""


class ToolServers:
    """What a process needs to speak to tool servers. Their tokens are looked up for each call."""

    def __init__(self, http: HttpClient, lookup: Lookup) -> None:
        self._http = http
        self._lookup = lookup

    async def discover(self, tenant_id: UUID, server: ToolServer) -> ToolServerStatus:
        """Ask a server for its tools. What goes wrong is a status, too; nothing of its token is in it."""
        with narrowing_within():
            found = msgspec.to_builtins(await self._discovered(tenant_id, server))
        return msgspec.convert(self._lookup.redactor.value(tenant_id, found), ToolServerStatus)

    async def _discovered(self, tenant_id: UUID, server: ToolServer) -> ToolServerStatus:
        checked_at = clock.now().isoformat()
        try:
            async with asyncio.timeout(DISCOVERY_SECONDS):
                client = self.client(server, await self.token(tenant_id, server))
                try:
                    listed = await client.list_tools()
                finally:
                    await client.close()
        except TimeoutError:
            return ToolServerStatus(False, f"it did not list its tools within {DISCOVERY_SECONDS:g} s", checked_at=checked_at)
        except ToolServerError as error:
            return ToolServerStatus(False, f"{error.detail}. {error.hint}".removesuffix(". "), checked_at=checked_at)
        tools, left_out = _sorted_out(server, listed)
        return ToolServerStatus(True, protocol=client.protocol, tools=tools, left_out=left_out, checked_at=checked_at)

    def client(self, server: ToolServer, token: str, *, protocol: str = "") -> McpClient:
        """A client of a server."""
        return McpClient(self._http, server.spec.endpoint, token=token, protocol=protocol)

    @asynccontextmanager
    async def connections(self, tenant_id: UUID) -> AsyncIterator["Connections"]:
        """Connections for one run of a tenant. They are opened by its first calls; sessions are closed at the end."""
        connections = Connections(self, tenant_id)
        try:
            yield connections
        finally:
            await connections.close()

    async def token(self, tenant_id: UUID, server: ToolServer) -> str:
        """The token as it is now. Raises `ToolServerRefused`, or `ToolServerUnavailable` when it can't be had for now."""
        if server.spec.credentials is None:
            return ""
        try:
            token = await self._lookup.value(tenant_id, server.spec.credentials)
        except HansaError as error:
            failure = ToolServerUnavailable if passes(error) else ToolServerRefused
            raise failure(error.detail, hint=error.hint) from error
        if not token.isascii() or not token.isprintable():
            raise ToolServerRefused("the token that spec.credentials names holds characters that no header can carry")
        return token


class Connections:
    """One run's view of its tool servers. Use `ToolServers.connections`."""

    def __init__(self, servers: ToolServers, tenant_id: UUID) -> None:
        self._servers = servers
        self._tenant_id = tenant_id
        self._clients: dict[str, tuple[str, McpClient]] = {}
        """By server: the token it was opened with, and the client."""
        self._outdated: list[McpClient] = []

    def tools(self, known: KnownServer) -> dict[str, Tool]:
        """The tools of a server, by name; nothing is opened until one is called."""
        effects = known.manifest.spec.effects
        return {
            name: Tool(
                name=name,
                description=tool.description,
                parameters=tool.input_schema,
                effect=Effect(effects.get(name, "unsafe")),
                arguments=dict,
                run=partial(self._call, known, tool),
                timeout=CALL_SECONDS,
                untrusted=True,
            )
            for name, tool in known.tools.items()
        }

    async def _call(self, known: KnownServer, tool: ServerTool, context: ToolContext, arguments: dict[str, Any]) -> Any:
        try:
            with narrowing_within():  # by a token that is tied to hosts
                result = await (await self._client(known)).call_tool(
                    tool.name,
                    arguments,
                    idempotency_key=context.idempotency_key,
                    headers=mirrored_headers(tool.input_schema, arguments),
                )
        except ToolServerError as error:
            raise ToolFailed(f"ToolServer {known.name!r}: {error.detail}", hint=error.hint) from error
        if result.get("isError") is True:
            text = _text(result.get("content")) or f"{tool.name} failed and did not say why"
            raise ToolFailed(text[:_MAX_FAILURE])
        return result["structuredContent"] if result.get("structuredContent") is not None else _text(result.get("content"))

    async def _client(self, known: KnownServer) -> McpClient:
        """The client of a server; another one once its token has changed. The earlier one is left to end at the run's end."""
        token = await self._servers.token(self._tenant_id, known.manifest)
        opened = self._clients.get(known.name)
        if opened is None or opened[0] != token:
            if opened is not None:
                self._outdated.append(opened[1])
            protocol = known.status.protocol if known.status else ""
            opened = self._clients[known.name] = (token, self._servers.client(known.manifest, token, protocol=protocol))
        return opened[1]

    async def close(self) -> None:
        """End the sessions."""
        await asyncio.gather(*(client.close() for client in [*self._outdated, *(each for _, each in self._clients.values())]))


def _sorted_out(server: ToolServer, listed: list[Any]) -> tuple[tuple[ServerTool, ...], tuple[LeftOut, ...]]:
    """The tools that agents may use, and those that they can't, with the reason."""
    allow, size = set(server.spec.allow), 0
    tools: dict[str, ServerTool] = {}
    left_out: list[LeftOut] = []
    for raw in listed:
        name = _name(raw)
        if allow and name not in allow:
            continue
        tool, reason = _read_tool(raw)
        size += len(msgspec.json.encode(tool)) if tool else 0
        if tool is None:
            left_out.append(LeftOut(name, reason))
        elif name in tools:
            left_out.append(LeftOut(name, "the server lists it twice; the first one counts"))
        elif len(tools) == MAX_TOOLS or size > MAX_STATUS_BYTES:
            left_out.append(LeftOut(name, f"only {MAX_TOOLS} tools and {MAX_STATUS_BYTES} bytes of them are taken; use spec.allow"))
        else:
            tools[name] = tool
    seen = {*tools, *(each.name for each in left_out)}
    left_out.extend(LeftOut(name, "named in spec.allow, not offered by the server") for name in server.spec.allow if name not in seen)
    left_out.extend(
        LeftOut(name, "named in spec.effects, not among the tools") for name in sorted(server.spec.effects) if name not in seen | allow
    )
    return tuple(tools.values()), tuple(left_out[:MAX_TOOLS])


def _name(raw: Any) -> str:
    """The name of a tool, to speak of it, however wrong it is."""
    name = cast("dict[str, Any]", raw).get("name") if isinstance(raw, dict) else None
    return name[:128] if isinstance(name, str) and name else "(no name)"


def _read_tool(raw: Any) -> tuple[ServerTool | None, str]:
    try:
        listed = msgspec.convert(raw, _Listed)
    except msgspec.ValidationError as error:
        return None, f"the server describes it wrongly: {error}"
    reason = flaw(listed.inputSchema)
    return (None, reason) if reason else (ServerTool(listed.name, listed.description[:_MAX_DESCRIPTION], listed.inputSchema), "")


def _text(content: Any) -> str:
    """The text of a result; what is no text is replaced by a note."""
    parts = cast("list[Any]", content) if isinstance(content, list) else []
    return "\n".join(_part(cast("dict[str, Any]", part)) for part in parts if isinstance(part, dict))


def _part(part: dict[str, Any]) -> str:
    match part:
        case {"type": "text", "text": str() as text}:
            return text
        case {"type": "resource", "resource": {"text": str() as text}}:
            return text
        case {"type": "image" | "audio" as kind, "data": str() as data}:
            return f"[{kind}, {str(part.get('mimeType', 'of no type'))[:80]}, about {len(data) * 3 // 4} bytes, not shown]"
        case {"type": "resource_link", "uri": str() as uri}:
            return f"[link to {uri[:500]}]"
        case {"type": "resource", "resource": {"uri": str() as uri}}:
            return f"[resource {uri[:500]}, not text, not shown]"
        case _:
            return f"[content of type {str(part.get('type'))[:80]!r}, not shown]"
