"""The port on which a process shows its metrics: plain HTTP, one page, one request a connection. Off unless a port is set.

It asks nobody who he is; so it listens on loopback unless it is told otherwise, and what it shows says nothing of any tenant.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import structlog

from hansa.errors import Misconfigured
from hansa.telemetry.metrics import Metrics

log = structlog.stdlib.get_logger("hansa.metrics")
HEAD_SECONDS = 5.0
CONNECTIONS = 16
"""Open at once, at most; others are closed."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def showing(metrics: Metrics, host: str, port: int, look: Callable[[], Awaitable[None]] | None = None) -> AsyncIterator[None]:
    """Show metrics while the context is open, unless `port` is 0. `look` sees to what is only known by asking, before each page. Raises
    `Misconfigured`."""
    if not port:
        yield
        return
    page = _Page(metrics, look)
    try:
        server = await asyncio.start_server(page.answer, host, port, limit=8192)
    except (OSError, OverflowError) as error:
        hint = "See HANSA_METRICS_HOST and the ports beside it."
        raise Misconfigured(f"can't show metrics on {host}, port {port}: {error}", hint=hint) from error
    log.info("metrics.shown", address=f"{host}:{port}")
    try:
        yield
    finally:
        server.close()


class _Page:
    def __init__(self, metrics: Metrics, look: Callable[[], Awaitable[None]] | None) -> None:
        self._metrics = metrics
        self._look = look
        self._open = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request. Whatever comes of it touches nothing else."""
        self._open += 1
        try:
            if self._open <= CONNECTIONS:
                async with asyncio.timeout(HEAD_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await self._answer(head.split(b"\r\n", 1)[0].split(b" ")))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # who asks for nothing is answered nothing
        finally:
            self._open -= 1
            with suppress(OSError):
                writer.close()

    async def _answer(self, asked: list[bytes]) -> bytes:
        if len(asked) != 3 or asked[0] not in (b"GET", b"HEAD") or asked[1].partition(b"?")[0] != b"/metrics":
            return b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        if self._look is not None:
            await self._look()
        body = self._metrics.page()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + (body if asked[0] == b"GET" else b"")
