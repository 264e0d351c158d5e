"""The socket and its server: uvicorn in our own event loop, TLS renewed without closing anything, late connections ended.

Warning: certificates are renewed by listening anew on the same socket. Connections that wait in its queue are met by the new one.
"""

import asyncio
import contextlib
import ipaddress
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE

from hansa.errors import Misconfigured
from hansa.server.certificates import Certificates
from hansa.server.connections import Connection, Door
from hansa.server.problem import STEADY_HEADERS, STRICT_TRANSPORT
from hansa.settings import ServerSettings, Settings

log = structlog.stdlib.get_logger("hansa.server")
BACKLOG = 2048
SWEEP_SECONDS = 0.5
TELL_SECONDS = 10.0
SPARE_FILES = 256
"""Descriptors that a process needs for other things than its callers."""


async def serve_http(app: Any, settings: Settings, stopping: asyncio.Event) -> None:
    """Serve an ASGI application until `stopping` is set and its open requests have ended. Raises `Misconfigured`."""
    server = settings.server
    certificates = Certificates(settings.tls)
    config = uvicorn.Config(
        app,
        loop="none",
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(server.proxies),
        forwarded_allow_ips=_networks(server.proxies),
        headers=list((STEADY_HEADERS | (STRICT_TRANSPORT if certificates.context is not None else {})).items()),
        timeout_graceful_shutdown=int(server.grace_seconds),
    )
    _allow_files(server.connections + SPARE_FILES)
    with _bound(server) as listener:
        running = _Server(config, listener, certificates, settings)
        log.info("server.listening", address=listener.getsockname()[:2], tls=certificates.context is not None)
        helpers = [
            asyncio.create_task(running.end(stopping), name="server.end"),
            asyncio.create_task(running.sweep(), name="server.sweep"),
            asyncio.create_task(running.renew(settings.tls.look_seconds), name="server.renew"),
        ]
        for helper in helpers:
            helper.add_done_callback(running.without)
        try:
            await running.serve([listener])
        finally:
            for helper in helpers:
                helper.cancel()


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn would raise them again at its end, before our own clean-up."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket, certificates: Certificates, settings: Settings) -> None:
        super().__init__(config)
        self._listener = listener
        self._certificates = certificates
        self._door = Door(settings.server)
        self._renewing = asyncio.Event()
        self.servers = []

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        await self._listen()
        self.started = True

    async def _listen(self) -> None:
        """Take connections with the present certificate; those that were taken before go on."""
        options: dict[str, Any] = {}
        if self._certificates.context is not None:
            options = {"ssl": self._certificates.context, "ssl_handshake_timeout": self._door.settings.header_seconds}
        loop = asyncio.get_running_loop()
        new = await loop.create_server(self._connection, sock=self._listener.dup(), backlog=BACKLOG, **options)
        old, self.servers = self.servers, [new]
        for server in old:
            server.close()

    def _connection(self) -> Connection:
        return Connection(self._door, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def end(self, stopping: asyncio.Event) -> None:
        """Stop when told to."""
        await stopping.wait()
        self.should_exit = True

    def without(self, helper: asyncio.Task[None]) -> None:
        """One of our tasks has ended. Without it we would serve with less than was promised, so we don't."""
        if not helper.cancelled() and (error := helper.exception()) is not None:
            log.error("server.broke", task=helper.get_name(), exc_info=error)
            self.should_exit = True

    async def sweep(self) -> None:
        """End late connections, and say now and then how many were refused: one line for many, or strangers would fill the log."""
        loop = asyncio.get_running_loop()
        told = loop.time()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = loop.time()
            self._door.sweep(now)
            if self._door.refused and now - told > TELL_SECONDS:
                log.info("server.refused", connections=len(self._door.all), **self._door.refused)
                self._door.refused = {}
                told = now

    async def renew(self, pause: float) -> None:
        """Look for another certificate, and listen with it."""
        if self._certificates.context is None:
            return
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._renewing.set)
        while not self.should_exit:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._renewing.wait(), pause)
            asked = self._renewing.is_set()
            self._renewing.clear()
            if (asked or self._certificates.changed()) and self._certificates.renew() and self.started and not self.should_exit:
                await self._listen()


@contextmanager
def _bound(settings: ServerSettings) -> Iterator[socket.socket]:
    """The listening socket: an inherited one, or one of our own."""
    if settings.fd >= 0:
        with socket.socket(fileno=settings.fd) as inherited:
            yield inherited
        return
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except socket.gaierror as error:
        raise Misconfigured(f"{settings.host!r} is no address to listen on: {error}", hint="See HANSA_SERVER_HOST.") from error
    except OSError as error:
        raise Misconfigured(
            f"can't listen on {settings.host}, port {settings.port}: {error}", hint="See HANSA_SERVER_HOST and HANSA_SERVER_PORT."
        ) from error
    with listener:
        yield listener


def _networks(text: str) -> list[str]:
    """The proxies that are believed. Raises `Misconfigured`."""
    found = [each.strip() for each in text.split(",") if each.strip()]
    for each in found:
        try:
            ipaddress.ip_network(each)
        except ValueError as error:
            raise Misconfigured(f"HANSA_SERVER_PROXIES: {error}", hint="List addresses or networks, such as 10.0.0.0/8.") from error
    return found


def _allow_files(wanted: int) -> None:
    """Let the process have as many descriptors as its bound of connections needs, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < wanted:
            log.warning("server.few_descriptors", allowed=most, wanted=wanted)
