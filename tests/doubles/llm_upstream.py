"""An LLM server for tests and benchmarks: real HTTP on loopback, both protocols, and every way such servers misbehave.

What a request gets is decided by the scenarios lined up with `then`, else by its model's name when that names a scenario, else it
is answered properly: with the last user text. Every request is kept in `requests`.
`PYTHONPATH=tests python -m doubles.llm_upstream [PORT]` serves until it is interrupted.
"""

import asyncio
import json
import sys
import threading
from collections import deque
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import msgspec

from doubles import llm_wire
from doubles.llm_wire import Call, Protocol, Reply


class Kind(StrEnum):
    """What a request gets; each value can be used as a model's name."""

    OK = "ok"
    TOOL_CALL = "tool_call"
    TWO_TOOL_CALLS = "two_tool_calls"
    WHOLE_CALLS = "whole_calls"
    BAD_ARGUMENTS = "bad_arguments"
    MAX_TOKENS = "max_tokens"
    REFUSAL = "refusal"
    NOT_STREAMED = "not_streamed"
    ODD_FRAMING = "odd_framing"
    SPLIT = "split"
    WRONG_TYPE = "wrong_type"
    STATUS = "status"
    PLAIN_ERROR = "plain_error"
    ENDLESS_ERROR = "endless_error"
    HANG = "hang"
    HALF_STREAM = "half_stream"
    NO_TERMINATOR = "no_terminator"
    MALFORMED_JSON = "malformed_json"
    WRONG_SHAPE = "wrong_shape"
    NOT_UTF8 = "not_utf8"
    STREAM_ERROR = "stream_error"
    HTML = "html"
    EMPTY = "empty"
    NEVER_ENDS = "never_ends"
    KEEP_ALIVE_ONLY = "keep_alive_only"
    HUGE_LINE = "huge_line"
    LINGERS = "lingers"


class Scenario(msgspec.Struct, frozen=True):
    """One answer. `text` None: the last user text; `delay`: seconds before the first byte; `pace`: seconds between events."""

    kind: Kind = Kind.OK
    text: str | None = None
    arguments: str = '{"city": "Lübeck"}'
    status: int = 500
    said: str = "the double says no"
    retry_after: str | None = None
    delay: float = 0.0
    pace: float = 0.0


class Recorded:
    """A request as it arrived, and what became of its answer."""

    def __init__(self, *, method: str, path: str, headers: dict[str, str], body: bytes, connection: int) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.connection = connection
        self.finished = threading.Event()
        """The answer was sent in full."""
        self.abandoned = threading.Event()
        """The client closed the connection before that."""

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)

    async def is_abandoned(self, within: float) -> bool:
        """Whether the client hangs up within so many seconds."""
        return await asyncio.to_thread(self.abandoned.wait, within)


class _Hangup(Exception):
    """The client is gone."""


class _Connection:
    """The server's end of one connection while it answers one request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def pause(self, seconds: float) -> None:
        """Wait, but notice a client that hangs up."""
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        while clock() < until:
            self._check()
            await asyncio.sleep(min(0.01, max(0.0, until - clock())))

    async def send(self, data: bytes) -> None:
        self._check()
        self._writer.write(data)
        await self._writer.drain()

    async def head(self, status: int, *fields: str, length: int | None = None) -> None:
        """Status and header fields; without a length the body comes in chunks."""
        framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        lines = [f"HTTP/1.1 {status} Double", *fields, framing, "", ""]
        await self.send("\r\n".join(lines).encode())

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.send(b"0\r\n\r\n")

    def _check(self) -> None:
        if self._reader.at_eof() or self._reader.exception() is not None or self._writer.is_closing():
            raise _Hangup


class LLMUpstream:
    """The server, in a thread of its own. `url` is its address, without a path."""

    def __init__(self, *, port: int = 0) -> None:
        self.requests: list[Recorded] = []
        self.connections = 0
        self._port = port
        self._queue: deque[Scenario] = deque()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="llm-upstream", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def then(self, *scenarios: Scenario | Kind) -> Self:
        """Line up answers for the next requests, in this order."""
        self._queue.extend(Scenario(kind) if isinstance(kind, Kind) else kind for kind in scenarios)
        return self

    def fail_times(self, times: int, scenario: Scenario | None = None) -> Self:
        """The next `times` requests fail (529 unless told otherwise)."""
        return self.then(*[scenario or Scenario(Kind.STATUS, status=529)] * times)

    def start(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            raise TimeoutError("the upstream did not start")
        return self

    def stop(self) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            task = asyncio.create_task(self._serve(reader, writer, self.connections))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", self._port)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        async with server:
            await self._stop.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                while await self._exchange(reader, writer, number):
                    pass
            finally:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        """One request and its answer. False ends the connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Recorded(method=method, path=path, headers=headers, body=body, connection=number)
        self.requests.append(request)
        try:
            keep = await self._answer(request, _Connection(reader, writer))
        except (_Hangup, ConnectionError):
            request.abandoned.set()
            return False
        request.finished.set()
        return keep

    async def _answer(self, request: Recorded, connection: _Connection) -> bool:
        protocol = {"/chat/completions": Protocol.OPENAI, "/v1/messages": Protocol.ANTHROPIC}
        spoken = next((protocol[end] for end in protocol if request.path.endswith(end)), None)
        if spoken is None or request.method != "POST":
            await _send_whole(connection, 404, b'{"detail": "Not Found"}')
            return True
        scenario = self._queue.popleft() if self._queue else _named(request.json.get("model", ""))
        await connection.pause(scenario.delay)
        if scenario.kind in _BROKEN:
            return await _misbehave(connection, spoken, scenario, _reply(request.json, scenario))
        return await _behave(connection, spoken, scenario, request.json)


_BROKEN = frozenset(Kind) - {
    Kind.OK,
    Kind.TOOL_CALL,
    Kind.TWO_TOOL_CALLS,
    Kind.WHOLE_CALLS,
    Kind.BAD_ARGUMENTS,
    Kind.MAX_TOKENS,
    Kind.REFUSAL,
    Kind.NOT_STREAMED,
    Kind.ODD_FRAMING,
    Kind.SPLIT,
    Kind.WRONG_TYPE,
    Kind.LINGERS,
}


def _named(model: str) -> Scenario:
    return Scenario(Kind(model)) if model in set(Kind) else Scenario()


def _reply(body: dict[str, Any], scenario: Scenario) -> Reply:
    said = [message for message in body.get("messages", ()) if message["role"] != "system"]
    last = said[-1]["content"] if said else ""
    text = scenario.text
    if text is None:
        text = last if isinstance(last, str) else " ".join(str(block.get("text", block.get("content", ""))) for block in last)
    model = str(body.get("model", "")) + "-2026"
    match scenario.kind:
        case Kind.TOOL_CALL | Kind.BAD_ARGUMENTS | Kind.WHOLE_CALLS | Kind.TWO_TOOL_CALLS:
            names = [tool.get("name") or tool["function"]["name"] for tool in body.get("tools", ())] or ["no_such_tool"]
            count = 1 if scenario.kind in (Kind.TOOL_CALL, Kind.BAD_ARGUMENTS) else 2
            arguments = '{"city": "Lü' if scenario.kind is Kind.BAD_ARGUMENTS else scenario.arguments
            calls = tuple(Call(f"call_{n}_double", names[n % len(names)], arguments) for n in range(count))
            return Reply(model, text=scenario.text or "", calls=calls, stop="tool")
        case Kind.MAX_TOKENS:
            return Reply(model, text=text, stop="max")
        case Kind.REFUSAL:
            return Reply(model, text=text, stop="refusal")
        case _:
            return Reply(model, text=text)


async def _behave(connection: _Connection, protocol: Protocol, scenario: Scenario, body: dict[str, Any]) -> bool:
    """An answer that a client should understand."""
    reply = _reply(body, scenario)
    if not body.get("stream") or scenario.kind is Kind.NOT_STREAMED:
        await _send_whole(connection, 200, llm_wire.whole(protocol, reply))
        return True
    events = llm_wire.stream(protocol, reply)
    if scenario.kind is Kind.WHOLE_CALLS:
        events = llm_wire.whole_calls_openai_stream(reply)
    elif scenario.kind is Kind.ODD_FRAMING:
        events = [llm_wire.odd_openai_stream(reply)]
    elif scenario.kind is Kind.SPLIT:
        events = [bytes([byte]) for byte in b"".join(events)]
    media_type = "text/plain" if scenario.kind is Kind.WRONG_TYPE else "text/event-stream; charset=utf-8"
    await connection.head(200, f"Content-Type: {media_type}")
    for event in events:
        await connection.chunk(event)
        await connection.pause(scenario.pace)
    if scenario.kind is Kind.LINGERS:
        await connection.pause(3600)
    await connection.end()
    return True


async def _misbehave(connection: _Connection, protocol: Protocol, scenario: Scenario, reply: Reply) -> bool:
    events = llm_wire.stream(protocol, reply)
    match scenario.kind:
        case Kind.STATUS:
            fields = [f"Retry-After: {scenario.retry_after}"] if scenario.retry_after is not None else []
            await _send_whole(connection, scenario.status, llm_wire.error(protocol, scenario.status, scenario.said), *fields)
        case Kind.PLAIN_ERROR:
            await _send_whole(connection, 503, scenario.said.encode(), media_type="text/plain")
        case Kind.HTML:
            await _send_whole(connection, 200, b"<!doctype html><html><body>Welcome to nginx!</body></html>", media_type="text/html")
        case Kind.EMPTY:
            await _send_whole(connection, 200, b"", media_type="text/event-stream")
        case Kind.HANG:
            await connection.pause(3600)
        case Kind.ENDLESS_ERROR:
            await connection.head(500, "Content-Type: text/plain")
            await _repeat(connection, b"no " * 1000)
        case _:
            await connection.head(200, "Content-Type: text/event-stream")
            return await _break_stream(connection, protocol, scenario, events)
    return True


async def _break_stream(connection: _Connection, protocol: Protocol, scenario: Scenario, events: list[bytes]) -> bool:
    """A stream that begins well."""
    for event in events[: len(events) // 2]:
        await connection.chunk(event)
        await connection.pause(scenario.pace)
    match scenario.kind:
        case Kind.HALF_STREAM:
            return False
        case Kind.NO_TERMINATOR:
            await connection.chunk(b"".join(events[len(events) // 2 : -1]))
        case Kind.MALFORMED_JSON:
            await connection.chunk(b'event: message_delta\ndata: {"choices": [{"delta": {"cont\n\n' + events[-1])
        case Kind.WRONG_SHAPE:
            await connection.chunk(b'event: message_delta\ndata: {"choices": "yes", "type": 7, "delta": []}\n\n' + events[-1])
        case Kind.NOT_UTF8:
            await connection.chunk(b'event: message_delta\ndata: {"model": "\xff\xfe", "type": "\xff"}\n\n' + events[-1])
        case Kind.STREAM_ERROR:
            await connection.chunk(llm_wire.stream_error(protocol))
        case Kind.NEVER_ENDS:
            await _repeat(connection, llm_wire.filler(protocol) * 20)
        case Kind.KEEP_ALIVE_ONLY:
            await _repeat(connection, llm_wire.keep_alive(protocol) * 20)
        case _:
            await connection.chunk(b'data: {"type": "')
            await _repeat(connection, b"x" * 65536)
    await connection.end()
    return True


async def _repeat(connection: _Connection, data: bytes) -> None:
    """Send the same for ever; ends when the client hangs up."""
    while True:
        await connection.chunk(data)
        await asyncio.sleep(0)


async def _send_whole(connection: _Connection, status: int, body: bytes, *fields: str, media_type: str = "application/json") -> None:
    await connection.head(status, f"Content-Type: {media_type}", *fields, length=len(body))
    await connection.send(body)


if __name__ == "__main__":
    with LLMUpstream(port=int(sys.argv[1]) if len(sys.argv) > 1 else 0) as served:
        sys.stdout.write(f"{served.url}\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
