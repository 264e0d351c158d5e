"""All SQL about messages. What is decided about them is decided in SQL functions (`db/definitions/messages.sql`), in one statement each."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg
import msgspec

from hansa.db.pool import Connection, Database
from hansa.messages.model import Accepted, Claimed, Due, Message, Outcome

SWEEP_ROWS = 1000
LETTER = (
    "json_build_object('id', id, 'kind', kind, 'key', key, 'attempts', attempts, 'reason', reason, 'payload', payload, "
    "'created_at', created_at, 'buried_at', buried_at)"
)


async def put(connection: Connection, message: Message) -> bool:
    """Put a message into the outbox, in the sender's transaction; false when this id is under way already."""
    return await connection.fetchval(
        "SELECT hansa.outbox_put($1, $2, $3, $4, $5)", message.tenant_id, message.id, message.kind, message.key, message.payload
    )


async def claim(database: Database, *, limit: int, window: int) -> Claimed:
    """What is to be published now: at most about `limit` of each sort, never many more than `window` unreceived at once."""
    rows = await database.system("SELECT hansa.relay_claim($1, $2) AS claimed", limit, window)
    return msgspec.json.decode(rows[0]["claimed"], type=Claimed)


async def sent(database: Database, published: Sequence[Due], *, patience: float) -> None:
    """NATS has taken them: they are looked at again after `patience` seconds, times their tries."""
    tenants, positions = [each.tenant_id for each in published], [each.position for each in published]
    await database.system("SELECT hansa.relay_sent($1, $2, $3)", tenants, positions, timedelta(seconds=patience))


async def waiting(database: Database, most: int) -> int:
    """How many messages of a database wait to be delivered, counted up to `most`."""
    sql = "SELECT count(*) AS waiting FROM (SELECT FROM hansa.outbox WHERE state <> 'delivered' LIMIT $1) o"
    return (await database.system(sql, most))[0]["waiting"]


async def rewind(database: Database) -> None:
    """NATS has lost all: everything that is under way is due now."""
    await database.system("SELECT hansa.relay_rewind()")


async def accept(connection: Connection, tenant_id: UUID, message_id: UUID) -> Accepted:
    """Mark a message as received, in the receiver's transaction."""
    row = await connection.fetchrow("SELECT * FROM hansa.message_accept($1, $2)", tenant_id, message_id)
    if row is None:
        raise LookupError("hansa.message_accept gives one row")
    outcome = Outcome(row["outcome"])
    message = Message(tenant_id, message_id, row["kind"], row["key"], row["payload"]) if outcome is Outcome.NEW else None
    return Accepted(outcome, message, row["followed"])


async def count(connection: Connection, tenant_id: UUID, message_id: UUID) -> int | Outcome:
    """Count an attempt; how many there were, or that there is nothing to try."""
    attempts = await connection.fetchval("SELECT hansa.message_count($1, $2)", tenant_id, message_id)
    if attempts is None:
        return Outcome.DONE
    return Outcome.BUSY if attempts < 0 else int(attempts)


async def bury(connection: Connection, tenant_id: UUID, message_id: UUID, reason: str) -> bool:
    """Make a message a dead letter; false when it was received meanwhile."""
    return await connection.fetchval("SELECT hansa.message_bury($1, $2, $3)", tenant_id, message_id, reason)


async def sweep(database: Database, *, days: float) -> int:
    """Forget some of what was received more than `days` ago; how many."""
    rows = await database.system(
        "DELETE FROM hansa.inbox WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM hansa.inbox "
        "WHERE handled_at < clock_timestamp() - $1::interval ORDER BY handled_at LIMIT $2) RETURNING id",
        timedelta(days=max(days, 1.0)),
        SWEEP_ROWS,
    )
    return len(rows)


async def list_letters(connection: Connection, before: int | None, limit: int) -> list[asyncpg.Record]:
    """Dead letters, newest first: records (number, body as JSON text)."""
    return await connection.fetch(
        f"SELECT number, {LETTER} AS body FROM hansa.dead_letters WHERE tenant_id = (SELECT hansa.tenant()) "
        "AND ($1::bigint IS NULL OR number < $1) ORDER BY number DESC LIMIT $2",
        before,
        limit,
    )


async def find_letter(connection: Connection, message_id: UUID) -> str | None:
    """A dead letter as JSON text."""
    return await connection.fetchval(
        f"SELECT {LETTER} FROM hansa.dead_letters WHERE tenant_id = (SELECT hansa.tenant()) AND id = $1", message_id
    )


async def retry_letter(connection: Connection, tenant_id: UUID, message_id: UUID) -> bool:
    """Send a dead letter again; false when there is none of this id."""
    return await connection.fetchval("SELECT hansa.dead_letter_retry($1, $2)", tenant_id, message_id)
