"""What the worker's sweep does for the log: partitions ahead of time, and what is older than it is kept is removed.

Every step is bounded and safe to be cut off anywhere; workers take turns by a lock in the database. What may be removed at all is
decided by the database's policies, not here.
"""

import asyncio
import time
from datetime import timedelta
from uuid import UUID

import structlog

from hansa import clock
from hansa.artifacts.content import Artifacts
from hansa.db.pool import Database
from hansa.runs.log import store

log = structlog.stdlib.get_logger("hansa.retention")
WEEKS_AHEAD = 8
SWEEP_SECONDS = 20.0
"""The most that one sweep takes, so that a backlog is removed over many of them and runs are not disturbed."""
SESSIONS, EVENTS, VALUES = 500, 5_000, 500
FIRST = UUID(int=0)


class Retention:
    """One process's share, of one database. It remembers how far it has looked, and begins again when it is started again."""

    def __init__(self, database: Database, artifacts: Artifacts, days: int) -> None:
        self._database = database
        self._artifacts = artifacts
        self._days = days
        self._session = FIRST
        self._value: tuple[UUID, bytes] = (FIRST, b"")

    def of(self, database: Database) -> "Retention":
        """The same for another database."""
        return Retention(database, self._artifacts, self._days)

    async def sweep(self) -> None:
        """Make partitions, then remove for a while. Raises `Unavailable` when the database or the artifact store is away."""
        made = await store.make_partitions(self._database, WEEKS_AHEAD)
        if made:
            log.info("retention.partitions_made", partitions=made)
        if self._days <= 0:
            return
        before = clock.now() - timedelta(days=self._days)
        end = time.monotonic() + SWEEP_SECONDS
        # In this order: a week whose sessions have all gone is dropped as a whole, and has no events left to be removed one by one.
        more = True
        while more and time.monotonic() < end:
            removed, last = await store.remove_sessions(self._database, before, self._session, SESSIONS)
            if removed:
                log.info("retention.sessions_removed", sessions=removed)
            self._session, more = last or FIRST, last is not None
        if more:
            return
        while await store.drop_partition(self._database, before):
            log.info("retention.partition_dropped")
        more = True
        while more and time.monotonic() < end:
            more = await store.remove_events(self._database, EVENTS) > 0
        more = True
        while more and time.monotonic() < end:
            more = await self._remove_values()

    async def _remove_values(self) -> bool:
        """Remove values that nobody refers to; whether there are more to look at."""
        async with self._database.system_transaction() as connection:
            gone, last = await store.remove_values(connection, self._value, VALUES)
            # Before the rows are gone for good: else one that is kept anew meanwhile could lose its object.
            await asyncio.gather(*(self._artifacts.delete(tenant_id, digest) for tenant_id, digest in gone))
        self._value = last or (FIRST, b"")
        return last is not None
