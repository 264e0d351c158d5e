"""One NATS connection a process, which mends itself for ever.

Nothing sent here is the only copy of anything: a lost message costs at most a poll interval, never a run.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from hansa.bus.queue import Queue, QueueSpec
from hansa.errors import Misconfigured, Unavailable
from hansa.settings import NatsSettings

log = structlog.stdlib.get_logger("hansa.bus")
CONNECT_SECONDS = 10.0
Handler = Callable[[bytes], Awaitable[None]]


class Bus:
    """Publishes and subscribes; both quietly do nothing useful while NATS is away, and work again when it is back."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    async def ring(self, subject: str, payload: bytes = b"") -> None:
        """Publish without waiting. A message that can't be sent is dropped: the reader's poll finds the work."""
        if not self._client.is_connected:
            return
        try:
            await self._client.publish(subject, payload)
        except (NatsError, OSError) as error:
            log.warning("bus.dropped", subject=subject, error=str(error))

    def queue(self, spec: QueueSpec) -> Queue:
        """A work queue over this connection."""
        return Queue(self._client, spec)

    @asynccontextmanager
    async def listen(self, subject: str, handler: Handler) -> AsyncIterator[None]:
        """Call `handler(payload)` for each message until the context ends."""

        async def received(message: Msg) -> None:
            await handler(message.data)

        client: Any = self._client  # its stubs leave a future untyped
        subscription = await client.subscribe(subject, cb=received)
        try:
            yield
        finally:
            if not self._client.is_closed:
                try:
                    await subscription.unsubscribe()
                except NatsError as error:
                    log.info("bus.unsubscribe", subject=subject, error=str(error))


def _tls(settings: NatsSettings) -> ssl.SSLContext | None:
    """How to speak TLS; None leaves the client to what the address says, with the authorities of the system."""
    if not (settings.ca_file or settings.cert_file):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(
            f"the certificates for NATS can't be used: {error}",
            hint="Check HANSA_NATS_CA_FILE, HANSA_NATS_CERT_FILE and HANSA_NATS_KEY_FILE.",
        ) from error
    return context


@asynccontextmanager
async def open_bus(settings: NatsSettings, *, name: str) -> AsyncIterator[Bus]:
    """Connect, and stay connected: a silent cut is noticed within 4 s, reconnecting never ends."""

    told: list[str] = []

    async def on_error(error: Exception) -> None:
        reason = str(error) or type(error).__name__
        if told[-1:] != [reason]:  # the same one each try is said once
            log.info("bus.error", error=reason)
            told[:] = [reason]

    client = Client()
    options: dict[str, Any] = {
        "name": name,
        "token": Path(settings.token_file).read_text().strip() if settings.token_file else None,
        "error_cb": on_error,
        "ping_interval": 2,
        "max_outstanding_pings": 2,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.2,
        "connect_timeout": 5,
        "tls": _tls(settings),
    }
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.connect(settings.url, **options)
    except (NatsError, OSError, TimeoutError) as error:
        reason = told[0] if told else str(error) or type(error).__name__
        await client.close()
        if "authorization" in reason.lower():
            raise Misconfigured(f"NATS at {settings.url} refuses the login", hint="Check HANSA_NATS_TOKEN_FILE.") from error
        raise Unavailable(f"NATS at {settings.url} can't be reached: {reason}", hint="Is it up? Check HANSA_NATS_URL.") from error
    try:
        yield Bus(client)
    finally:
        await client.close()
