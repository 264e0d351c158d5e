"""An MCP server for tests: real HTTP on loopback, both eras of the protocol, strict about what clients must send, and ways to misbehave.

It runs on the loop of the test. Every POST is kept in `requests`. What `misbehave` lines up for a method is done instead of an answer.
"""

import asyncio
import base64
import json
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import Any

import msgspec

STATELESS = "2026-07-28"
WITH_SESSION = "2025-11-25"
META = "io.modelcontextprotocol/"
HUGE = b'{"jsonrpc": "2.0", "id": 1, "result": {"x": "' + b"x" * 10_000_000 + b'"}}'
DEEP = b'{"jsonrpc": "2.0", "id": 1, "result": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001


class Trouble(StrEnum):
    """What a request gets instead of its answer."""

    UNAUTHORIZED = "unauthorized"
    FORGOTTEN_SESSION = "forgotten_session"
    BROKEN = "broken"
    BUSY = "busy"
    REDIRECT = "redirect"
    HANG = "hang"
    CUT_STREAM = "cut_stream"
    CUT_JSON = "cut_json"
    EMPTY_STREAM = "empty_stream"
    WRONG_ID = "wrong_id"
    NOT_JSON = "not_json"
    NOT_UTF8 = "not_utf8"
    DEEP = "deep"
    HTML = "html"
    HUGE = "huge"
    HUGE_STREAM = "huge_stream"
    NEITHER = "neither"
    RPC_ERROR = "rpc_error"
    ONE_CURSOR = "one_cursor"
    EVER_NEW_CURSORS = "ever_new_cursors"
    INPUT_REQUIRED = "input_required"


class Request(msgspec.Struct, frozen=True):
    """A request as it arrived; header names are in lower case."""

    verb: str
    headers: dict[str, str]
    message: dict[str, Any]

    @property
    def method(self) -> str:
        return self.message.get("method", "")


def echo_tool(name: str = "echo", **properties: Any) -> dict[str, Any]:
    """A tool that answers with its arguments."""
    schema = {"type": "object", "properties": properties or {"text": {"type": "string"}}, "additionalProperties": False}
    return {"name": name, "title": "Echo", "description": f"Answers what {name} is told.", "inputSchema": schema}


class McpServer:
    """Use `mcp_server`. `results` are answers of tools by name, else a tool echoes; `pages` divides the list of tools."""

    def __init__(self, *, stateless: bool, with_session: bool) -> None:
        self.stateless = stateless
        self.with_session = with_session
        self.version = WITH_SESSION
        self.session_header = True
        self.as_events = False
        self.token = ""
        self.pages = 1
        self.tools: list[Any] = [echo_tool()]
        self.results: dict[str, dict[str, Any]] = {}
        self.requests: list[Request] = []
        self.sessions: dict[str, bool] = {}
        self.port = 0
        self._troubles: defaultdict[str, deque[Trouble]] = defaultdict(deque)
        self._opened = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def misbehave(self, method: str, *troubles: Trouble) -> None:
        """Do this for the next requests of a method."""
        self._troubles[method].extend(troubles)

    def methods(self) -> list[str]:
        """The methods that were asked, in order; `DELETE` for the end of a session."""
        return [request.method or request.verb for request in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                request = Request(head[0].split(" ")[0], headers, json.loads(body) if body else {})
                self.requests.append(request)
                troubles = self._troubles[request.method]
                trouble = troubles.popleft() if troubles else None
                if trouble is not None and await self._misbehaved(trouble, request, writer):
                    return
                if trouble is None:
                    await self._answer(request, writer)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """As the protocol demands."""
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return await _send(writer, 401, b"", "WWW-Authenticate: Bearer")
        if request.verb == "DELETE":
            return await _send(writer, 204 if self.sessions.pop(request.headers.get("mcp-session-id", ""), None) else 404, b"")
        if not {"application/json", "text/event-stream"} <= {part.strip() for part in request.headers.get("accept", "").split(",")}:
            return await _send(writer, 406, b"")
        meta = request.message.get("params", {}).get("_meta", {})
        if self.stateless and f"{META}protocolVersion" in meta:
            wrong = _wrong_headers(request, self.tools)
            if wrong:
                return await self._error(writer, request, 400, {"code": -32020, "message": wrong})
            return await self._result(writer, request)
        if self.with_session:
            return await self._in_session(writer, request)
        versions = {"supported": [STATELESS], "requested": "older"}
        return await self._error(writer, request, 400, {"code": -32022, "message": "Unsupported protocol version", "data": versions})

    async def _in_session(self, writer: asyncio.StreamWriter, request: Request) -> None:
        session = request.headers.get("mcp-session-id", "")
        if request.method == "initialize":
            if "mcp-protocol-version" in request.headers or session:
                return await self._error(writer, request, 400, {"code": -32600, "message": "initialize comes first"})
            self._opened += 1
            opened = f"session-{self._opened}"
            self.sessions[opened] = False
            result: dict[str, Any] = {
                "protocolVersion": self.version,
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "double", "version": "1"},
            }
            return await self._send_message(
                writer, {"jsonrpc": "2.0", "id": request.message["id"], "result": result}, f"Mcp-Session-Id: {opened}"
            )
        if not session or request.headers.get("mcp-protocol-version") != self.version:
            return await self._error(writer, request, 400, {"code": -32000, "message": "Bad Request: Server not initialized"})
        if session not in self.sessions:
            return await _send(writer, 404, b"")
        if request.method == "notifications/initialized":
            self.sessions[session] = True
            return await _send(writer, 202, b"")
        if not self.sessions[session]:
            return await self._error(writer, request, 400, {"code": -32600, "message": "not initialized"})
        return await self._result(writer, request)

    async def _result(self, writer: asyncio.StreamWriter, request: Request) -> None:
        params = request.message.get("params", {})
        result: dict[str, Any]
        if request.method == "tools/list":
            size = -(-len(self.tools) // self.pages)
            start = int(params.get("cursor", "0"))
            result = {"tools": self.tools[start : start + size]}
            if start + size < len(self.tools):
                result["nextCursor"] = str(start + size)
        elif request.method == "tools/call":
            text = json.dumps(params["arguments"], sort_keys=True)
            result = self.results.get(params["name"], {"content": [{"type": "text", "text": text}]})
        else:
            return await self._error(writer, request, 404, {"code": -32601, "message": "Method not found"})
        if f"{META}protocolVersion" in params.get("_meta", {}):
            result = {"resultType": "complete", **result}
        return await self._send_message(writer, {"jsonrpc": "2.0", "id": request.message["id"], "result": result})

    async def _error(self, writer: asyncio.StreamWriter, request: Request, status: int, error: dict[str, Any]) -> None:
        message = {"jsonrpc": "2.0", "id": request.message.get("id"), "error": error}
        await _send(writer, status, json.dumps(message).encode(), "Content-Type: application/json")

    async def _send_message(self, writer: asyncio.StreamWriter, message: dict[str, Any], *fields: str) -> None:
        body = json.dumps(message)
        if not self.as_events:
            return await _send(writer, 200, body.encode(), "Content-Type: application/json; charset=utf-8", *fields)
        progress = json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}})
        half = body.index(",") + 1
        stream = (
            f"\ufeff: a comment\r\nid: 7\r\ndata:\r\n\r\nevent: endpoint\ndata: /elsewhere\n\nevent: message\r\ndata: {progress}\r\n\r\n"
            f"retry: 10\rdata:{body[:half]}\rdata: {body[half:]}\r\r: never read"
        ).encode()
        await _send(writer, 200, None, "Content-Type: text/event-stream", *fields)
        for start in range(0, len(stream), 11):
            await _chunk(writer, stream[start : start + 11])
        return await _chunk(writer, b"")

    async def _misbehaved(self, trouble: Trouble, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Misbehave; whether the connection is of no more use."""
        request_id = request.message.get("id")
        json_type, events = "Content-Type: application/json", "Content-Type: text/event-stream"
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id}
        bodies: dict[Trouble, tuple[int, bytes, str]] = {
            Trouble.UNAUTHORIZED: (401, b"", json_type),
            Trouble.BROKEN: (500, b"oops", "Content-Type: text/plain"),
            Trouble.BUSY: (429, b"", "Retry-After: 1"),
            Trouble.REDIRECT: (307, b"", "Location: http://127.0.0.1:1/elsewhere"),
            Trouble.WRONG_ID: (200, _dumped({**message, "id": 4711, "result": {"tools": [], "content": []}}), json_type),
            Trouble.NOT_JSON: (200, b'{"jsonrpc": "2.0", ', json_type),
            Trouble.NOT_UTF8: (200, b'{"jsonrpc": "2.0", "id": "\xff"}', json_type),
            Trouble.DEEP: (200, DEEP, json_type),
            Trouble.HTML: (200, b"<h1>Welcome</h1>", "Content-Type: text/html"),
            Trouble.HUGE: (200, HUGE, json_type),
            Trouble.NEITHER: (200, _dumped(message), json_type),
            Trouble.RPC_ERROR: (200, _dumped({**message, "error": {"code": -32603, "message": f"no,\n {self.token}"}}), json_type),
            Trouble.ONE_CURSOR: (200, _dumped({**message, "result": {"tools": [], "nextCursor": "again"}}), json_type),
            Trouble.EVER_NEW_CURSORS: (200, _dumped({**message, "result": {"tools": [], "nextCursor": str(request_id)}}), json_type),
            Trouble.INPUT_REQUIRED: (200, _dumped({**message, "result": {"resultType": "input_required"}}), json_type),
        }
        if trouble in bodies:
            status, body, field = bodies[trouble]
            await _send(writer, status, body, field)
            return False
        if trouble is Trouble.FORGOTTEN_SESSION:
            self.sessions.clear()
            await self._answer(request, writer)
            return False
        if trouble is Trouble.HANG:
            await asyncio.sleep(30)
        elif trouble is Trouble.CUT_JSON:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
            await writer.drain()
        else:
            await _send(writer, 200, None, events)
            if trouble is Trouble.CUT_STREAM:
                await _chunk(writer, b'data: {"jsonrpc": "2.0", "id"')
            if trouble is Trouble.HUGE_STREAM:
                for _ in range(10):
                    await _chunk(writer, b": " + b"x" * 1_000_000 + b"\n")
            if trouble is Trouble.EMPTY_STREAM:
                await _chunk(writer, b"")
        writer.close()
        return True


@asynccontextmanager
async def mcp_server(*, stateless: bool = True, with_session: bool = False, port: int = 0) -> AsyncIterator[McpServer]:
    """A server that speaks one era, or both; on a free port unless one is given."""
    server = McpServer(stateless=stateless, with_session=with_session)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await server.serve(reader, writer)
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(serve(reader, writer), name="mcp double"))

    listener = await asyncio.start_server(connected, "127.0.0.1", port)
    server.port = int(listener.sockets[0].getsockname()[1])
    try:
        yield server
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _dumped(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes | None, *fields: str) -> None:
    """A whole answer; with body None only its head, and chunks follow."""
    framing = "Transfer-Encoding: chunked" if body is None else f"Content-Length: {len(body)}"
    writer.write("\r\n".join([f"HTTP/1.1 {status} Double", framing, *fields, "", ""]).encode() + (body or b""))
    await writer.drain()


async def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()


def _wrong_headers(request: Request, tools: list[Any]) -> str:
    """What the stateless era demands of headers, and which of it is not so."""
    params = request.message["params"]
    meta = params["_meta"]
    expected = {"mcp-protocol-version": meta[f"{META}protocolVersion"], "mcp-method": request.method}
    if f"{META}clientCapabilities" not in meta or meta[f"{META}protocolVersion"] != STATELESS:
        return "the metadata of the request is not right"
    if request.method == "tools/call":
        expected["mcp-name"] = params["name"]
        (properties,) = [tool["inputSchema"].get("properties", {}) for tool in tools if tool["name"] == params["name"]] or [{}]
        for name, schema in properties.items():
            if "x-mcp-header" in schema and name in params["arguments"]:
                value = params["arguments"][name]
                text = str(value).lower() if isinstance(value, bool) else str(value)
                expected[f"mcp-param-{schema['x-mcp-header'].lower()}"] = text
    wrong = [name for name, value in expected.items() if _plain(request.headers.get(name, "")) != value]
    return f"Header mismatch: {', '.join(wrong)}" if wrong else ""


def _plain(value: str) -> str:
    if value.startswith("=?base64?") and value.endswith("?="):
        return base64.b64decode(value[9:-2]).decode()
    return value
