"""All SQL about the audit trail."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from hansa.audit.chain import START
from hansa.db.pool import Connection, Database

AT = """to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
"""A time as it is hashed."""
AT_OF_E = AT.replace("(at ", "(e.at ")
ROW = f"seq, at, {AT} AS told_at, event::text AS event, encode(hash, 'hex') AS hash"
MINE = "tenant_id = (SELECT hansa.tenant())"


class Stored(msgspec.Struct, frozen=True):
    """A row of a trail. `told_at` and `event` are texts as they were hashed, `hash` is in hex."""

    seq: int
    at: datetime
    told_at: str
    event: str
    hash: str


class Head(msgspec.Struct, frozen=True):
    """Where a trail is said to end, and the highest number of a row that is there."""

    seq: int
    hash: str
    newest: int


class Anchor(msgspec.Struct, frozen=True):
    """What retention has removed of a trail: the last row of it, and a signed statement as JSON text."""

    seq: int
    hash: str
    statement: str


class End(msgspec.Struct, frozen=True):
    """The last row of a tenant's trail, or of a piece of it; `sealed`: a checkpoint outside covers it."""

    tenant_id: UUID
    seq: int
    told_at: str
    hash: str
    sealed: bool


async def append(connection: Connection, events: Sequence[str]) -> int:
    """Chain events, as canonical JSON, to those of the connection's tenant; the number of the last one."""
    return await connection.fetchval("SELECT hansa.audit_append($1)", events)


async def owe(connection: Connection, events: Sequence[tuple[UUID, str]]) -> None:
    """Keep events, as canonical JSON, that the trail of the connection's tenant is to have in another database."""
    await connection.executemany("INSERT INTO hansa.audit_owed (tenant_id, id, event) VALUES (hansa.tenant(), $1, $2)", events)


async def owed(connection: Connection) -> dict[UUID, str]:
    """Those events, in the order in which they came."""
    rows = await connection.fetch(f"SELECT id, event::text AS event FROM hansa.audit_owed WHERE {MINE} ORDER BY id")
    return {row["id"]: row["event"] for row in rows}


async def take(connection: Connection, owed: Sequence[UUID]) -> set[UUID]:
    """Those of the events that the trail of the connection's tenant does not have, and will have from now on. Waits for whoever takes one
    of them at this moment."""
    rows = await connection.fetch(
        "INSERT INTO hansa.audit_taken (tenant_id, id) SELECT hansa.tenant(), id FROM unnest($1::uuid[]) id ON CONFLICT DO NOTHING "
        "RETURNING id",
        owed,
    )
    # Once it is no longer owed nobody brings it again, but somebody may be about to who has read before that it is.
    await connection.execute(
        f"DELETE FROM hansa.audit_taken WHERE {MINE} AND at < clock_timestamp() - interval '30 days' AND id <> ALL ($1)", owed
    )
    return {row["id"] for row in rows}


async def forgive(connection: Connection, owed: Sequence[UUID]) -> None:
    """The trail of the connection's tenant has these events."""
    await connection.execute(f"DELETE FROM hansa.audit_owed WHERE {MINE} AND id = ANY ($1)", owed)


async def page(connection: Connection, filters: dict[str, Any], before: int | None, limit: int) -> list[Stored]:
    """Rows, newest first. `filters`: action, actor, target, outcome, since and until, or None each."""
    rows = await connection.fetch(
        f"SELECT {ROW} FROM hansa.audit_events WHERE {MINE} AND ($1::bigint IS NULL OR seq < $1) "
        "AND ($2::text IS NULL OR action = $2) AND ($3::text IS NULL OR actor = $3) AND ($4::text IS NULL OR target = $4) "
        "AND ($5::text IS NULL OR event ->> 'outcome' = $5) AND ($6::timestamptz IS NULL OR at >= $6) "
        "AND ($7::timestamptz IS NULL OR at < $7) ORDER BY seq DESC LIMIT $8",
        before,
        *(filters.get(name) for name in ("action", "actor", "target", "outcome", "since", "until")),
        limit,
    )
    return [Stored(*row) for row in rows]


async def chain(connection: Connection, after: tuple[int, datetime | None], limit: int) -> list[Stored]:
    """Rows in the order of the chain, from after one; what was put in under a number that is there stands beside it."""
    seq, at = after
    rows = await connection.fetch(
        f"SELECT {ROW} FROM hansa.audit_events WHERE {MINE} AND seq >= $1 AND (seq > $1 OR ($2::timestamptz IS NOT NULL AND at > $2)) "
        "ORDER BY seq, at LIMIT $3",
        seq,
        at,
        limit,
    )
    return [Stored(*row) for row in rows]


async def head(connection: Connection) -> Head:
    """Where the tenant's trail is said to end; 0: it has not begun."""
    row = await connection.fetchrow(
        f"SELECT h.seq, encode(h.hash, 'hex') AS hash, (SELECT max(seq) FROM hansa.audit_events WHERE {MINE}) AS newest "
        f"FROM (SELECT 1) one LEFT JOIN hansa.audit_heads h ON {MINE}"
    )
    return Head(0, START.hex(), 0) if row is None else Head(row["seq"] or 0, row["hash"] or START.hex(), row["newest"] or 0)


async def anchor(connection: Connection) -> Anchor | None:
    """What retention has removed of the tenant's trail."""
    row = await connection.fetchrow(f"SELECT seq, encode(hash, 'hex') AS hash, statement FROM hansa.audit_anchors WHERE {MINE}")
    return None if row is None else Anchor(*row)


async def first_since(connection: Connection, since: datetime) -> int | None:
    """The number of the first row from a time on."""
    return await connection.fetchval(f"SELECT seq FROM hansa.audit_events WHERE {MINE} AND at >= $1 ORDER BY at, seq LIMIT 1", since)


async def hash_of(connection: Connection, seq: int) -> str | None:
    """The hash of a row."""
    return await connection.fetchval(
        f"SELECT encode(hash, 'hex') FROM hansa.audit_events WHERE {MINE} AND seq = $1 ORDER BY at LIMIT 1", seq
    )


async def lock(connection: Connection) -> bool:
    """Be the only one who seals and removes, until the end of the transaction; false: another is."""
    return bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock(hashtextextended('hansa.audit', 0))"))


async def unsealed(connection: Connection, seconds: float, *, rows: int, limit: int) -> list[End]:
    """Ends of trails that want a checkpoint, of any tenant."""
    found = await connection.fetch(
        f"SELECT tenant_id, seq, {AT} AS told_at, encode(hash, 'hex') AS hash, false AS sealed FROM hansa.audit_heads "
        "WHERE pending_since IS NOT NULL AND (pending_since <= clock_timestamp() - make_interval(secs => $1) OR seq - sealed_seq >= $2) "
        "ORDER BY pending_since LIMIT $3",
        seconds,
        rows,
        limit,
    )
    return [End(*row) for row in found]


async def sealed(connection: Connection, ends: Sequence[tuple[UUID, int]]) -> None:
    """Keep that checkpoints of these rows are outside."""
    await connection.execute("SELECT hansa.audit_sealed($1, $2)", [tenant for tenant, _ in ends], [seq for _, seq in ends])


async def make_partitions(database: Database, weeks: int) -> int:
    """Make the partitions of this and so many weeks more; the number made."""
    return (await database.system("SELECT hansa.audit_partitions_make($1) AS made", weeks))[0]["made"]


async def oldest(connection: Connection, before: datetime) -> str | None:
    """The name of the oldest partition, if all that is in it is older than a time."""
    return await connection.fetchval("SELECT hansa.audit_partition_oldest($1)", before)


async def ends(connection: Connection, partition: str) -> list[End]:
    """The last row of each tenant in a partition."""
    found = await connection.fetch(
        f"SELECT e.tenant_id, e.seq, {AT_OF_E} AS told_at, encode(e.hash, 'hex') AS hash, h.sealed_seq >= e.seq AS sealed "
        "FROM hansa.audit_partition_ends($1) e JOIN hansa.audit_heads h USING (tenant_id) ORDER BY e.tenant_id",
        partition,
    )
    return [End(*row) for row in found]


async def set_anchor(connection: Connection, tenant_id: UUID, seq: int, *, digest: str, statement: str) -> None:
    """Keep what is about to be removed of a tenant's chain, unless more was."""
    await connection.execute(
        "INSERT INTO hansa.audit_anchors (tenant_id, seq, hash, statement) VALUES ($1, $2, decode($3, 'hex'), $4) "
        "ON CONFLICT (tenant_id) DO UPDATE SET seq = $2, hash = decode($3, 'hex'), statement = $4, dropped_at = now() "
        "WHERE audit_anchors.seq < $2",
        tenant_id,
        seq,
        digest,
        statement,
    )


async def drop_partition(connection: Connection, partition: str) -> bool:
    """Remove a partition of which every row lies at or before its tenant's anchor; false: not now."""
    return await connection.fetchval("SELECT hansa.audit_partition_drop($1)", partition)
