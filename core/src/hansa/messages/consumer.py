"""Receives messages: each is marked as received and handled in one transaction of its tenant, and only then acknowledged.

A receiver that fails is tried again, a few times; then the message becomes a dead letter and those behind it go on. Must not know
what any message means.
"""

import asyncio
from collections.abc import Callable
from uuid import UUID

import msgspec
import structlog

from hansa.bus.connection import Bus
from hansa.bus.queue import Delivery, Queue
from hansa.db.pool import Database
from hansa.errors import Unavailable
from hansa.messages import store
from hansa.messages.model import Envelope, Message, Outcome, Receiver, Receivers, Ring, pause
from hansa.settings import MessageSettings

log = structlog.stdlib.get_logger("hansa.messages")
PULL_SECONDS = 2.0
PAUSE_SECONDS = 0.5
REASON_CHARACTERS = 2000


class Unreceivable(Exception):
    """No attempt will ever succeed: the message becomes a dead letter at once."""


class Consumer:
    """Receives from a queue. `followed` is called with the bell of a database when the next message of a key there can be sent."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        queue: Queue,
        receivers: Receivers,
        *,
        settings: MessageSettings,
        followed: Callable[[bytes], None],
    ) -> None:
        self._database = database
        self._bus = bus
        self._queue = queue
        self._receivers = receivers
        self._settings = settings
        self._followed = followed

    async def run(self) -> None:
        """Receive one message after the other, until cancelled; start several for several at once."""
        async with self._queue.pull() as pull:
            while True:
                try:
                    await self._queue.ensure()
                    delivery = await pull.next(PULL_SECONDS)
                except Unavailable as error:
                    log.info("messages.consumer_waits", error=error.detail)
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
                if delivery is not None:
                    await self._receive(delivery)

    async def _receive(self, delivery: Delivery) -> None:
        try:
            envelope = msgspec.json.decode(delivery.payload, type=Envelope)
        except msgspec.DecodeError as error:
            log.warning("messages.not_ours", error=str(error))
            await delivery.ack()
            return
        try:
            again = await self._attempt(envelope, repeated=delivery.repeated)
        except asyncio.CancelledError:
            await delivery.retry(0)  # rolled back: another worker need not wait for our silence to be noticed
            raise
        except Unavailable as error:
            log.warning("messages.database_away", message_id=str(envelope.id), error=error.detail)
            again = PAUSE_SECONDS
        # As in a relay.
        except Exception:
            if not envelope.database:
                raise
            log.exception("messages.receiving_broke", message_id=str(envelope.id), database=envelope.database)
            again = PAUSE_SECONDS
        await (delivery.ack() if again is None else delivery.retry(again))

    async def _attempt(self, envelope: Envelope, *, repeated: bool) -> float | None:
        """Try to handle a message; None when there is nothing left to do, else seconds after which to try again."""
        tenant_id, message_id = envelope.tenant_id, envelope.id
        if envelope.database != self._database.of(tenant_id).name:
            return PAUSE_SECONDS  # it lies in a database that this worker does not know, and another one may
        attempts: int | Outcome = 0
        if repeated:  # the worker that had it may have died of it
            attempts = await self._count(tenant_id, message_id)
            if isinstance(attempts, Outcome):
                return PAUSE_SECONDS if attempts is Outcome.BUSY else None
            if attempts > self._settings.attempts:
                return await self._bury(tenant_id, message_id, "the worker that handled it ended, each time")
        try:
            return await self._handle(tenant_id, message_id)
        except Unavailable:
            raise
        except Unreceivable as error:
            return await self._bury(tenant_id, message_id, str(error))
        # Whatever a receiver raises is a failed attempt: it is logged, counted, and kept as the reason if it was the last.
        except Exception as error:
            log.warning("messages.failed", message_id=str(message_id), exc_info=True)
            attempts = attempts if repeated else await self._count(tenant_id, message_id)
            if isinstance(attempts, Outcome):
                return PAUSE_SECONDS
            if attempts < self._settings.attempts:
                return pause(attempts, self._settings.backoff_seconds)
            return await self._bury(tenant_id, message_id, f"{type(error).__name__}: {error}")

    async def _handle(self, tenant_id: UUID, message_id: UUID) -> float | None:
        rings: tuple[Ring, ...] = ()
        async with self._database.tenant(tenant_id) as connection:
            accepted = await store.accept(connection, tenant_id, message_id)
            if accepted.outcome is Outcome.BUSY:
                return PAUSE_SECONDS
            if accepted.message is not None:
                rings = tuple(await self._receiver(accepted.message)(connection, accepted.message))
        bell = self._database.of(tenant_id).bell
        if accepted.followed:
            self._followed(bell)
        for ring in rings:
            await self._bus.ring(ring.subject, ring.payload or bell)
        return None

    def _receiver(self, message: Message) -> Receiver:
        if message.kind not in self._receivers:
            known = ", ".join(sorted(self._receivers)) or "none"
            raise Unreceivable(f"nothing here receives messages of the kind {message.kind!r} (kinds received: {known})")
        return self._receivers[message.kind]

    async def _count(self, tenant_id: UUID, message_id: UUID) -> int | Outcome:
        async with self._database.tenant(tenant_id) as connection:
            return await store.count(connection, tenant_id, message_id)

    async def _bury(self, tenant_id: UUID, message_id: UUID, reason: str) -> None:
        async with self._database.tenant(tenant_id) as connection:
            buried = await store.bury(connection, tenant_id, message_id, reason[:REASON_CHARACTERS].replace("\x00", ""))
        if buried:
            log.error("messages.dead_letter", tenant_id=str(tenant_id), message_id=str(message_id), reason=reason)
        self._followed(self._database.of(tenant_id).bell)
