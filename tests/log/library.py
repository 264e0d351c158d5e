"""Sessions of any age for tests of the log: their ids are made at that age, as if they had been opened then."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from db.scratch import Scratch
from hansa.artifacts.content import Artifacts
from hansa.db.pool import Database
from hansa.runs.log.keeping import Values
from hansa.runs.values import split_fields

A, B = UUID(int=0xA), UUID(int=0xB)
FROM_BYTES = 10_000
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NO_RUN = UUID(int=1)
EVENT = "INSERT INTO hansa.events (tenant_id, session_id, seq, run_id, type, data) VALUES ($1, $2, $3, $4, 'log', $5)"


def id_of(age: timedelta) -> UUID:
    """An id as it was made that long ago."""
    milliseconds = int((datetime.now(UTC) - age).timestamp() * 1000)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | 0b10 << 62 | int.from_bytes(os.urandom(7), "big"))


class Library:
    """A database with two tenants, and ways to fill it and to look at all of it."""

    def __init__(self, scratch: Scratch, database: Database, artifacts: Artifacts, folder: Path) -> None:
        self.scratch = scratch
        self.database = database
        self.artifacts = artifacts
        self.folder = folder
        self.values = Values(database, artifacts, FROM_BYTES)

    async def furnish(self) -> None:
        for tenant, name in ((A, "a"), (B, "b")):
            await self.scratch.add_tenant(tenant, name)
            await self.scratch.execute(
                "INSERT INTO hansa.agent_revisions (tenant_id, agent, revision, digest, manifest) VALUES ($1, 'agent', 1, 'd', '{}')",
                tenant,
            )

    async def session(self, tenant: UUID, age: timedelta, *, idle: timedelta | None = None, state: str = "completed") -> UUID:
        """A session of that age with one run and one event, idle for `idle` (as long as it is old, if not said)."""
        session, run, active = id_of(age), id_of(age), datetime.now(UTC) - (age if idle is None else idle)
        await self.scratch.execute(
            "INSERT INTO hansa.sessions (tenant_id, id, agent, last_seq, active_at) VALUES ($1, $2, 'agent', 1, $3)",
            tenant,
            session,
            active,
        )
        await self.scratch.execute(
            "INSERT INTO hansa.runs (tenant_id, id, session_id, queued_seq, agent, revision, state, input) "
            "VALUES ($1, $2, $3, 1, 'agent', 1, $4, '1')",
            *(tenant, run, session, state),
        )
        await self.event(tenant, session, 1, "{}", run)
        return session

    async def event(self, tenant: UUID, session: UUID, seq: int, data: str, run: UUID = NO_RUN) -> None:
        await self.scratch.execute(EVENT, tenant, session, seq, run, data)

    async def keep(self, tenant: UUID, session: UUID | None, seq: int, **fields: Any) -> list[bytes]:
        """An event with fields that are large; the digests of what was taken out."""
        text, taken = split_fields(fields)
        await self.values.keep(tenant, taken)
        if session is not None:
            async with self.database.tenant(tenant) as connection:
                await connection.execute(EVENT, tenant, session, seq, NO_RUN, text.decode())
                await connection.execute("SELECT hansa.values_refer($1, $2, $3)", tenant, session, [text.decode()])
        return sorted(taken)

    async def partition(self, age: timedelta) -> str:
        """Make the partition of the week that long ago; its name."""
        at = datetime.now(UTC) - age
        week = (at - timedelta(days=at.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
        name = f"hansa.events_{week:%Y%m%d}"
        (bounds,) = await self.scratch.fetch("SELECT hansa.id_floor($1) AS low, hansa.id_floor($2) AS high", week, week + timedelta(days=7))
        await self.scratch.execute(
            f"CREATE TABLE {name} PARTITION OF hansa.events FOR VALUES FROM ('{bounds['low']}') TO ('{bounds['high']}')"
        )
        await self.scratch.execute(f"ALTER TABLE {name} OWNER TO hansa_owner; ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
        return name

    async def count(self, table: str) -> int:
        (row,) = await self.scratch.fetch(f"SELECT count(*) AS n FROM hansa.{table}")
        return row["n"]

    async def sessions(self) -> set[UUID]:
        return {row["id"] for row in await self.scratch.fetch("SELECT id FROM hansa.sessions")}

    async def digests(self) -> set[bytes]:
        return {row["digest"] for row in await self.scratch.fetch("SELECT digest FROM hansa.values")}

    async def age_values(self, days: int) -> None:
        """As if all values had last been put that long ago."""
        await self.scratch.execute("UPDATE hansa.values SET used_at = now() - make_interval(days => $1)", days)

    def objects(self) -> set[bytes]:
        """The digests that the artifact store has."""
        return {bytes.fromhex(path.name) for path in self.folder.rglob("*") if path.is_file()}
