"""The hatch of a cage: a proxy that a caged program finds on its own loopback, and that leads through the egress door.

The program is on a network of its own on which nobody else is. The socket it connects to was made there and handed out to the worker,
so what it asks for is judged here, in the context of the run: by the door's policy, the tenant's list and the agent's. Requests of
HTTP and tunnels (CONNECT) are understood; redirects come back to the program, whose next request is judged anew.
"""

import asyncio
import contextlib
import contextvars
import re
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from hansa.egress.client import ConnectionFailed
from hansa.egress.refusal import EgressRefused
from hansa.egress.tunnel import Stream, Tunnels

MAX_HEAD = 65_536
AT_ONCE = 16
_PIECE = 65_536
_HEAD_SECONDS = 10.0
_REQUEST = re.compile(rb"([A-Z]{1,20}) ([!-~]{1,8192}) HTTP/1\.[01]\r\n")
_DROPPED = (b"proxy-", b"connection:", b"keep-alive:", b"upgrade:")


@asynccontextmanager
async def open_hatch(outer: socket.socket, tunnels: Tunnels) -> AsyncGenerator[None]:
    """Serve what comes through the listening socket that arrives over `outer`; nothing arrives from a cage that could not be built."""
    hatch = _Hatch(tunnels, contextvars.copy_context())
    serving = asyncio.create_task(hatch.serve(outer), name="cage hatch")
    try:
        yield
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        outer.close()


class _Hatch:
    def __init__(self, tunnels: Tunnels, context: contextvars.Context) -> None:
        self._tunnels = tunnels
        self._context = context
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def serve(self, outer: socket.socket) -> None:
        outer.setblocking(False)
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(outer.fileno(), readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(outer.fileno())
        _, found, _, _ = socket.recv_fds(outer, 1, 1)
        if not found:
            return
        listener = socket.socket(fileno=found[0])
        listener.setblocking(False)
        asked = set[asyncio.Task[None]]()
        server = await asyncio.start_server(lambda reader, writer: self._accept(reader, writer, asked), sock=listener, limit=MAX_HEAD)
        try:
            await server.serve_forever()
        finally:
            server.close()
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: "set[asyncio.Task[None]]") -> None:
        # The lists in force are those of the run that began the program, whatever this callback is called from.
        task = asyncio.get_running_loop().create_task(self._answer(reader, writer), context=self._context.copy())
        asked.add(task)
        task.add_done_callback(asked.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._slots:
                await self._pass(reader, writer)
        except (*ConnectionFailed, OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # either side is gone, or says nothing
        finally:
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        found = _REQUEST.match(head)
        if found is None:
            return await _refuse(writer, 400, "this is no request to a proxy")
        method, target = found.group(1), found.group(2).decode("ascii")
        origin, path = (f"https://{target}", "") if method == b"CONNECT" else _split(target)
        try:
            stream = await self._tunnels.connect(origin)
        except EgressRefused as error:
            return await _refuse(writer, 403, f"{error.detail}. {error.hint}".removesuffix(". "))
        except ConnectionFailed as error:
            return await _refuse(writer, 502, str(error))
        try:
            if method == b"CONNECT":
                writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                await stream.write(_head_for_server(method, path, head))
            await self._splice(reader, writer, stream)
        finally:
            await stream.aclose()

    async def _splice(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: Stream) -> None:
        sending = asyncio.create_task(self._send(reader, stream))
        try:
            left = self._tunnels.policy.max_bytes
            while data := await stream.read(_PIECE, timeout=self._tunnels.policy.read_timeout):
                left -= len(data)
                if left < 0:
                    return
                writer.write(data)
                await writer.drain()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, reader: asyncio.StreamReader, stream: Stream) -> None:
        left = self._tunnels.policy.max_bytes
        while (data := await reader.read(_PIECE)) and left > 0:
            left -= len(data)
            await stream.write(data, timeout=self._tunnels.policy.read_timeout)


def _split(target: str) -> tuple[str, str]:
    """Origin and path of an absolute URL. What is none is refused by the door."""
    scheme, colon, rest = target.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{colon}{host}", f"{slash or '/'}{path}"


def _head_for_server(method: bytes, path: str, head: bytes) -> bytes:
    """The head as the server wants it: with a path alone, and one request a connection."""
    lines = head.split(b"\r\n")[1:-2]
    kept = [line for line in lines if not line.lower().startswith(_DROPPED)]
    return b"\r\n".join([method + b" " + path.encode("ascii") + b" HTTP/1.1", *kept, b"Connection: close", b"", b""])


async def _refuse(writer: asyncio.StreamWriter, status: int, reason: str) -> None:
    body = f"{reason}\n".encode()
    writer.write(
        f"HTTP/1.1 {status} Refused\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
    )
    with contextlib.suppress(ConnectionError):
        await writer.drain()
