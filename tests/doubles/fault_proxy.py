"""A proxy in front of a real server that misbehaves on demand: closes connections, answers 429 or 500, lets streams fall silent.

Runs in a thread and loop of its own. Speaks plain HTTP to whoever comes and TLS to the server, if that does.
"""

import asyncio
import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import aiohttp
from aiohttp import web

HOP_BY_HOP = frozenset({"connection", "content-length", "transfer-encoding", "host", "keep-alive", "content-encoding", "accept-encoding"})

QUIET = logging.getLogger("fault proxy")
"""Connections break here on purpose. And a traceback that one thread formats is parsed by Python, which in 3.11 can make it fail in another
one to parse anything."""
QUIET.setLevel(logging.CRITICAL)


class FaultProxy:
    """See the module. All attributes may be changed at any time; `refused` is what `refuse` did so far."""

    def __init__(self) -> None:
        self.url = ""
        self.away = False
        """True: every connection is closed, the open ones too."""
        self.silent = False
        """True: what streams say is swallowed, those that are open and new ones."""
        self.refuse: Callable[[str, str], int] = lambda method, path: 0
        """Status to answer a request with, by method and path; 0: it is passed on."""
        self.delay: Callable[[str, str], float] = lambda method, path: 0.0
        """Seconds to hold a request up before it is passed on."""
        self.refused = 0
        self.requests: list[tuple[str, str]] = []
        self.streams = 0

    async def handle(self, request: web.Request, session: aiohttp.ClientSession, server: str) -> web.StreamResponse:
        """One request."""
        path = request.path_qs
        self.requests.append((request.method, path))
        if self.away:
            _drop(request)
        status = self.refuse(request.method, path)
        if status:
            self.refused += 1
            return web.json_response({"message": "made up", "detail": "made up"}, status=status, headers={"retry-after": "1"})
        await asyncio.sleep(self.delay(request.method, path))
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        body = await request.read()
        try:
            async with session.request(request.method, server + path, data=body or None, headers=headers, allow_redirects=False) as answer:
                given = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
                if "watch=true" not in path:
                    return web.Response(status=answer.status, body=await answer.read(), headers=given)
                return await self._stream(request, answer, given)
        except (aiohttp.ClientError, OSError):
            _drop(request)
            raise

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse, headers: dict[str, str]) -> web.StreamResponse:
        out = web.StreamResponse(status=answer.status, headers=headers)
        await out.prepare(request)
        self.streams += 1
        try:
            while True:
                try:
                    async with asyncio.timeout(0.1):
                        line = await answer.content.readany()
                except TimeoutError:
                    if self.away:
                        _drop(request)
                    continue
                if not line:
                    return out
                if not self.silent:
                    await out.write(line)
        finally:
            self.streams -= 1


def _drop(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError


@contextmanager
def fault_proxy(server: str, trust: ssl.SSLContext | None = None) -> Iterator[FaultProxy]:
    """A proxy in front of a server."""
    proxy, ready, stopping = FaultProxy(), threading.Event(), threading.Event()

    async def run() -> None:
        connector = aiohttp.TCPConnector(ssl=trust if trust is not None else False, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=True, read_bufsize=2**20) as session:
            app = web.Application(client_max_size=2**26)

            async def handle(request: web.Request) -> web.StreamResponse:
                return await proxy.handle(request, session, server)

            app.router.add_route("*", "/{tail:.*}", handle)
            runner = web.AppRunner(app, access_log=None, logger=QUIET, handle_signals=False, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            ready.set()
            while not stopping.is_set():
                await asyncio.sleep(0.02)
            await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="fault proxy")
    thread.start()
    try:
        assert ready.wait(10)
        yield proxy
    finally:
        stopping.set()
        thread.join(10)
