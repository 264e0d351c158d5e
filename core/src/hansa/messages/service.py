"""What others do with messages: send one, and look after those that nobody could receive. Rules and errors here, SQL in `store`."""

import math
from uuid import UUID

import msgspec

from hansa.bus.connection import Bus
from hansa.bus.subjects import messages_ready
from hansa.db.pool import Connection, Database
from hansa.errors import NotFound, TooLarge, Unavailable
from hansa.messages import store
from hansa.messages.model import MAX_PAYLOAD_BYTES, Message
from hansa.telemetry.metrics import Metrics

MOST_COUNTED = 100_000


class Letters(msgspec.Struct, frozen=True):
    """One page of dead letters: JSON texts, and the number of the last one when there are more."""

    data: list[str]
    last: int | None


async def send(connection: Connection, message: Message) -> bool:
    """Send a message as part of the caller's transaction; false when its id is under way already. Ring `messages_ready` after the
    commit, or it waits for the poll. Raises `TooLarge`; a SQL function calls `hansa.outbox_put` instead.
    """
    size = len(message.payload.encode())
    if size > MAX_PAYLOAD_BYTES:
        raise TooLarge(
            f"the payload of message {message.id} ({message.kind}) has {size} bytes, and a message may have {MAX_PAYLOAD_BYTES}",
            hint="Send the id of something that is stored.",
        )
    return await store.put(connection, message)


async def count_waiting(database: Database, metrics: Metrics) -> None:
    """Let metrics say how many messages wait to be delivered; no number while the platform's database is away."""
    try:
        found = [await store.waiting(each, MOST_COUNTED) for each in database.every if each is database or each.trouble is None]
    except Unavailable:
        found = [math.nan]
    metrics.outbox.set(sum(found))


class DeadLetters:
    """Messages that were given up, of one region."""

    def __init__(self, database: Database, bus: Bus, region: str) -> None:
        self._database = database
        self._bus = bus
        self._region = region

    async def page(self, tenant_id: UUID, *, before: int | None, limit: int) -> Letters:
        """Dead letters, newest first."""
        async with self._database.tenant(tenant_id) as connection:
            rows = await store.list_letters(connection, before, limit + 1)
        return Letters([row["body"] for row in rows[:limit]], rows[limit - 1]["number"] if len(rows) > limit else None)

    async def get(self, tenant_id: UUID, message_id: UUID) -> str:
        """A dead letter as JSON text."""
        async with self._database.tenant(tenant_id) as connection:
            return await _find(connection, message_id)

    async def retry(self, connection: Connection, tenant_id: UUID, message_id: UUID) -> str:
        """Send one again under its old id, behind what its key has now, with all its attempts; what it was, as JSON text. Then `ring`."""
        body = await _find(connection, message_id)
        if not await store.retry_letter(connection, tenant_id, message_id):
            raise _missing(message_id)  # someone else did, between the two
        return body

    async def ring(self, tenant_id: UUID) -> None:
        """There is something of a tenant to send."""
        await self._bus.ring(messages_ready(self._region), self._database.of(tenant_id).bell)


async def _find(connection: Connection, message_id: UUID) -> str:
    body = await store.find_letter(connection, message_id)
    if body is None:
        raise _missing(message_id)
    return body


def _missing(message_id: UUID) -> NotFound:
    return NotFound(f"there is no dead letter {message_id}", hint="`hansa dead-letters` lists them; one that was sent again is none.")
