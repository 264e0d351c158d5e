"""A TCP link from one process to one server, which can be cut, half-closed, stalled and muted.

Knows nothing of what it carries. Bytes are never changed or reordered: what is not passed on ends with the connection.
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Self

LOOPBACK = "127.0.0.1"
CHUNK = 1 << 16


class Link:
    """Listens on `port` from `async with` to its end and carries each connection on to the server's port."""

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self._server_port = server_port
        self._server: asyncio.Server | None = None
        self._carried: set[asyncio.Task[None]] = set()
        self._to_process: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._muted = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, LOOPBACK, 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._carried, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection in both directions; new ones are carried."""
        for task in self._carried:
            task.cancel()

    def half_close(self) -> None:
        """The process is told that the server has said its last word; its own way to the server stays open."""
        for writer in self._to_process:
            with contextlib.suppress(OSError, RuntimeError):
                writer.write_eof()

    async def stall(self, seconds: float) -> None:
        """Connections stay open and nothing passes, in either direction; then all that was held back does."""
        self._flowing.clear()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._flowing.set()

    async def mute(self, seconds: float) -> None:
        """The server hears everything and none of its answers arrives; then the connections are cut."""
        self._muted = True
        try:
            await asyncio.sleep(seconds)
        finally:
            self.cut()
            self._muted = False

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carried.add(task)
        self._to_process.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            far_reader, far = await asyncio.open_connection(LOOPBACK, self._server_port)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, far, answers=False), name="link.ask")
                both.create_task(self._pump(far_reader, writer, answers=True), name="link.answer")
        except* (OSError, EOFError):
            pass  # one side is gone, and so is the other below
        except* asyncio.CancelledError:
            pass  # cut
        finally:
            self._carried.discard(task)
            self._to_process.discard(writer)
            for side in (writer, far):
                if side is not None:
                    side.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await reader.read(CHUNK):
            await self._flowing.wait()
            if answers and self._muted:
                continue
            if not writer.transport.is_closing() and writer.can_write_eof():
                with contextlib.suppress(RuntimeError):  # half-closed meanwhile
                    writer.write(data)
            await writer.drain()
        # Whoever closes its side of a connection to PostgreSQL or NATS is done with it.
        raise EOFError
