"""All SQL about kept values and about what retention removes."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from hansa.db.pool import Connection, Database


class Columns(msgspec.Struct, frozen=True):
    """Values as the database is given them, side by side; a body None: it is in the artifact store."""

    digests: list[bytes]
    sizes: list[int]
    bodies: list[str | None]


class ValueRow(msgspec.Struct, frozen=True):
    """A kept value; `body` None: it is in the artifact store."""

    digest: bytes
    body: str | None


async def put_values(connection: Connection, tenant_id: UUID, session_id: UUID | None, columns: Columns) -> list[bytes]:
    """Keep values and that the session's log refers to them; the digests that the artifact store must have."""
    return await connection.fetchval(
        "SELECT hansa.values_put($1, $2, $3, $4, $5)", tenant_id, session_id, columns.digests, columns.sizes, columns.bodies
    )


async def find_values(connection: Connection, digests: Sequence[bytes]) -> list[ValueRow]:
    """Those of the values that are there."""
    rows = await connection.fetch(
        "SELECT digest, body FROM hansa.values WHERE tenant_id = (SELECT hansa.tenant()) AND digest = ANY($1)", digests
    )
    return [ValueRow(*row) for row in rows]


async def make_partitions(database: Database, weeks: int) -> int:
    """Make the log's partitions of this week and the next; how many were missing."""
    ((made,),) = await database.system("SELECT hansa.log_partitions_make($1)", weeks)
    return made


async def remove_sessions(database: Database, before: datetime, after: UUID, limit: int) -> tuple[int, UUID | None]:
    """Look at `limit` sessions and remove the idle ones: (removed, where to go on)."""
    ((removed, last),) = await database.system("SELECT removed, last FROM hansa.retention_sessions($1, $2, $3)", before, after, limit)
    return removed, last


async def drop_partition(database: Database, before: datetime) -> bool:
    """Drop one partition of the log that no session needs; whether there was one."""
    ((dropped,),) = await database.system("SELECT hansa.retention_partition($1)", before)
    return dropped


async def remove_events(database: Database, limit: int) -> int:
    """Remove events of removed sessions, `limit` at most; 0: none is left."""
    ((removed,),) = await database.system("SELECT hansa.retention_events($1)", limit)
    return removed


async def remove_values(
    connection: Connection, after: tuple[UUID, bytes], limit: int
) -> tuple[list[tuple[UUID, bytes]], tuple[UUID, bytes] | None]:
    """Look at `limit` values and remove those that nobody refers to: (what the artifact store must delete, where to go on)."""
    rows = await connection.fetch("SELECT tenant_id, digest, in_store FROM hansa.retention_values($1, $2, $3)", *after, limit)
    gone = [(row["tenant_id"], row["digest"]) for row in rows if row["in_store"]]
    last = [(row["tenant_id"], row["digest"]) for row in rows if row["in_store"] is None]
    return gone, last[0] if last else None
