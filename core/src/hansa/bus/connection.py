"""One NATS connection a process, which mends itself for ever.

Nothing sent here is the only copy of anything: a lost message costs at most a poll interval, never a run.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.protocol import parser

from hansa import clock
from hansa.bus.queue import Queue, QueueSpec
from hansa.errors import Misconfigured, Unavailable
from hansa.settings import NatsSettings

log = structlog.stdlib.get_logger("hansa.bus")
CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 2.0
"""How long the server is waited for at the end: one that takes nothing more holds up no process."""
REFUSED = "authorization"
ANSWER_SECONDS = 5.0
PENDING_MESSAGES, PENDING_BYTES = 4096, 16 << 20
TELL_SECONDS = 10.0
Handler = Callable[[bytes], Awaitable[None]]


# What stands in front of a message is divided by spaces, and a subject may hold any other character. The client divides at whatever Python
# calls a blank: a program of a tenant could write a number behind one into its subject, and so say to which subscription of ours it goes.
parser.MSG_RE = re.compile(rb"\AMSG +([^ \r\n]+) +(\d+) +(([^ \r\n]+) +)?(\d+)\r\n")
parser.HMSG_RE = re.compile(rb"\AHMSG +([^ \r\n]+) +(\d+) +(([^ \r\n]+) +)?(\d+) +(\d+)\r\n")


class SteadyClient(Client):
    """The client of nats-py, which drops a message that it can't read. By itself it stops reading then, and hears nothing of anybody until
    it misses the answers to its pings: and programs of tenants write subjects and headers as they like.
    """

    _tell_at = 0.0

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        try:
            await super()._process_msg(sid, subject, reply, data, headers)
        # Whatever it is, it is about this message.
        except Exception as error:
            if clock.monotonic() >= self._tell_at:  # one line for many, or strangers would fill the log
                self._tell_at = clock.monotonic() + TELL_SECONDS
                log.warning("bus.unreadable", subject=repr(subject[:200]), error=type(error).__name__)


class Asked(msgspec.Struct, frozen=True):
    """A request as it came; `message_id` is what its sender knows it by, empty if it gave it none."""

    subject: str
    payload: bytes
    message_id: str


Answer = Callable[[Asked, bool], Awaitable[bytes]]
"""The answer to a request; with True: too many are being answered, and this one is to be refused at once."""


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
    async def answering(self, subject: str, group: str, answer: Answer, *, at_once: int) -> AsyncIterator[None]:
        """Answer requests until the context ends, each by one of the `group`. `answer` must not raise."""
        tasks = set[asyncio.Task[None]]()

        async def reply(message: Msg, asked: Asked, *, busy: bool) -> None:
            said = await answer(asked, busy)
            if message.reply:
                await self.ring(message.reply, said)

        async def received(message: Msg) -> None:
            headers = message.headers or {}
            asked = Asked(message.subject, message.data, headers.get("Nats-Msg-Id", ""))
            if len(tasks) >= at_once:
                await reply(message, asked, busy=True)
                return
            task = asyncio.create_task(reply(message, asked, busy=False), name="bus.answer")
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        client: Any = self._client
        subscription = await client.subscribe(
            subject, queue=group, cb=received, pending_msgs_limit=PENDING_MESSAGES, pending_bytes_limit=PENDING_BYTES
        )
        try:
            yield
        finally:
            await self._unsubscribe(subscription, subject)
            if tasks:
                await asyncio.wait(tasks, timeout=ANSWER_SECONDS)
            for task in tasks:
                task.cancel()

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
            await self._unsubscribe(subscription, subject)

    async def _unsubscribe(self, subscription: Any, subject: str) -> None:
        if not self._client.is_closed:
            try:
                await subscription.unsubscribe()
            except NatsError as error:
                log.info("bus.unsubscribe", subject=subject, error=str(error))


def tls(settings: NatsSettings) -> ssl.SSLContext | None:
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
    async with connected(settings, name, login(settings)) as client:
        yield Bus(client)


def login(settings: NatsSettings) -> dict[str, Any]:
    """How Hansa's own processes log in, as the client's options. Raises `Misconfigured`."""
    if settings.token_file and settings.creds_file:
        raise Misconfigured("HANSA_NATS_TOKEN_FILE and HANSA_NATS_CREDS_FILE are both set", hint="Set the one that your server asks for.")
    for variable, path in (("HANSA_NATS_TOKEN_FILE", settings.token_file), ("HANSA_NATS_CREDS_FILE", settings.creds_file)):
        try:
            text = Path(path).read_text() if path else ""
        except OSError as error:
            raise Misconfigured(f"{variable} {path} can't be read: {error.strerror}") from error
        if text and variable == "HANSA_NATS_TOKEN_FILE":
            return {"token": text.strip()}
    return {"user_credentials": settings.creds_file} if settings.creds_file else {}


def _place(url: str) -> str:
    """The address without what one logs in with."""
    scheme, _, rest = url.rpartition("://")
    return f"{scheme or 'nats'}://{rest.rpartition('@')[2]}"


async def _first(connecting: Coroutine[Any, Any, None], refused: asyncio.Event) -> None:
    """Connect, unless the login is refused before: the client would try for ever."""
    trying, refusal = asyncio.create_task(connecting, name="bus.connect"), asyncio.create_task(refused.wait(), name="bus.refused")
    try:
        await asyncio.wait({trying, refusal}, return_when=asyncio.FIRST_COMPLETED)
        if not trying.done():
            raise NatsError(REFUSED)
        trying.result()
    finally:
        for task in (trying, refusal):
            task.cancel()
        await asyncio.wait({trying, refusal})


@asynccontextmanager
async def connected(settings: NatsSettings, name: str, logging_in: dict[str, Any]) -> AsyncIterator[Client]:
    """A client that mends itself for ever. Raises `Misconfigured` when the server refuses the login, or `Unavailable`."""
    told: list[str] = []
    refused = asyncio.Event()

    async def on_error(error: Exception) -> None:
        reason = str(error) or type(error).__name__
        if REFUSED in reason.lower():
            refused.set()
        if told[-1:] != [reason]:  # the same one each try is said once
            log.info("bus.error", error=reason)
            told[:] = [reason]

    client = SteadyClient()
    options: dict[str, Any] = {
        **logging_in,
        "name": name,
        "error_cb": on_error,
        "ping_interval": 2,
        "max_outstanding_pings": 2,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.2,
        "connect_timeout": 5,
        "tls": tls(settings),
    }
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await _first(client.connect(settings.url, **options), refused)
    except (NatsError, OSError, TimeoutError) as error:
        reason, place = str(error) or (told[0] if told else type(error).__name__), _place(settings.url)
        await _close(client)
        if REFUSED in reason.lower():
            hint = "Check HANSA_NATS_CREDS_FILE and HANSA_NATS_OPERATOR_FILE, or HANSA_NATS_TOKEN_FILE: they must be this server's."
            raise Misconfigured(f"NATS at {place} refuses the login", hint=hint) from error
        raise Unavailable(f"NATS at {place} can't be reached: {reason}", hint="Is it up? Check HANSA_NATS_URL.") from error
    try:
        yield client
    finally:
        await _close(client)


async def _close(client: Client) -> None:
    """Close, in whatever state the connection is."""
    task = asyncio.current_task()
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await client.close()
    except (NatsError, OSError, TimeoutError) as error:
        log.info("bus.not_closed", error=str(error) or f"the server takes nothing for {CLOSE_SECONDS:g} s")
    except asyncio.CancelledError:
        # A client that is about to connect again cancels that, and so what it awaits itself a moment later. Nobody has cancelled us then.
        if task is None or task.cancelling():
            raise
