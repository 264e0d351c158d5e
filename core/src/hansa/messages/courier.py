"""What a worker runs for messages: a relay, some consumers and a sweeper, as named tasks that end together."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import structlog

from hansa.bus.connection import Bus
from hansa.bus.queue import Queue, QueueSpec
from hansa.bus.subjects import messages_queue, messages_ready, messages_sent
from hansa.db.pool import Database
from hansa.errors import Unavailable
from hansa.messages import store
from hansa.messages.consumer import Consumer
from hansa.messages.model import Receivers
from hansa.messages.relay import Relay
from hansa.settings import MessageSettings

log = structlog.stdlib.get_logger("hansa.messages")
QUEUE_BYTES = 16 << 20
"""Reserved on each server. An envelope takes some 300 bytes, and the window keeps their number small."""
SWEEP_SECONDS = 600.0
CANCEL_SECONDS = 0.2


def queue_of(bus: Bus, settings: MessageSettings, *, region: str, replicas: int) -> Queue:
    """The queue of messages within a region."""
    spec = QueueSpec(messages_queue(region), messages_sent(region), settings.resend_seconds, QUEUE_BYTES, replicas)
    return bus.queue(spec)


@asynccontextmanager
async def open_courier(
    database: Database, bus: Bus, receivers: Receivers, settings: MessageSettings, *, region: str, replicas: int = 1
) -> AsyncIterator[Relay]:
    """Carry messages while the context is open, those of each database by a relay of its own; the platform's can be woken. A task that
    fails of itself ends the context's body too."""
    queue = queue_of(bus, settings, region=region, replicas=replicas)
    relays = {each.bell: Relay(each, queue, settings, region=region) for each in database.every}

    def wake(bell: bytes) -> None:
        if bell in relays:
            relays[bell].wake()

    async def rung(bell: bytes) -> None:
        wake(bell)

    consumer = Consumer(database, bus, queue, receivers, settings=settings, followed=wake)
    async with bus.listen(messages_ready(region), rung), asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[None]] = []
        for each in database.every:
            tasks.append(group.create_task(relays[each.bell].run(), name=f"messages.relay {each.name}"))
            tasks.append(group.create_task(_sweep(each, settings), name=f"messages.sweep {each.name}"))
        tasks += [group.create_task(consumer.run(), name=f"messages.receive.{number}") for number in range(settings.concurrency)]
        try:
            yield relays[database.bell]
        finally:
            await _end(tasks)


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel until all have ended: before Python 3.12 `wait_for`, which the drivers use, loses a cancellation that meets a result."""
    while tasks:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=CANCEL_SECONDS)


async def _sweep(database: Database, settings: MessageSettings) -> None:
    while True:
        swept = 0
        try:
            swept = await store.sweep(database, days=settings.inbox_days)
        except Unavailable as error:
            log.warning("messages.sweep_waits", error=error.detail)
        # As in a relay.
        except Exception:
            if not database.name:
                raise
            log.exception("messages.sweep_broke", database=database.name)
        await asyncio.sleep(0 if swept == store.SWEEP_ROWS else SWEEP_SECONDS)
