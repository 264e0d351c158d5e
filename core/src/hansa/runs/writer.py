"""Carries the writes of all runs of a process to the database, those of one tenant together (`hansa.db.gathering`)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog

from hansa.db.gathering import Gatherer, carrying
from hansa.db.pool import Database
from hansa.errors import Unavailable
from hansa.runs import store
from hansa.runs.budget import store as budget_store
from hansa.runs.log.keeping import Values
from hansa.runs.model import Ask, Claim, Grant, Unsent, Write, Written
from hansa.runs.values import columns

log = structlog.stdlib.get_logger("hansa.runs")
BATCH = 128
Item = tuple[Claim, Write]
T = TypeVar("T")


class GroupedWriter:
    """Implements `hansa.runs.journal.Writer`. Use `open_writer`."""

    def __init__(self, database: Database, values: Values, lease: float) -> None:
        self._database = database
        self._values = values
        self._lease = lease
        # A fenced claim may write beside its successor: each run stands once in a batch.
        self.gatherer = Gatherer(self._write, size=BATCH, abreast=2, mark=lambda item: item[0].id)
        self.reserving = Gatherer(self._reserve, size=BATCH)

    async def write(self, claim: Claim, write: Write) -> Written | None:
        large = self._values.large(write.taken)
        # Before its turn comes: a slow artifact store holds up this run and no other.
        if large and await self._patiently(lambda: self._values.put_large(claim.tenant_id, large)) is None:
            return None
        return await self.gatherer.done(claim.tenant_id, (claim, write))

    async def reserve(self, claim: Claim, ask: Ask) -> Grant:
        return await self.reserving.done(claim.tenant_id, (claim, ask))

    async def count_message(self, claim: Claim) -> Unsent | None:
        """Counted before it is written: one that is not written after all, because this worker is lost here, counts too."""
        return await self._patiently(lambda: budget_store.count_message(self._database, claim.tenant_id))

    async def _reserve(self, batch: Sequence[tuple[Claim, Ask]]) -> list[Grant]:
        """A step has one reservation, whose amount is said whole: that makes asking again safe."""
        found = await self._patiently(lambda: budget_store.reserve(self._database, batch))
        return [Grant("fenced", 0)] * len(batch) if found is None else found

    async def _write(self, batch: Sequence[Item]) -> list[Written | None]:
        taken = {digest: body for _, write in batch for digest, body in write.taken.items()}
        values = columns(taken, self._values.large(taken))
        found = await self._patiently(lambda: store.write(self._database, batch, values)) or {}
        return [found.get(claim.id) for claim, _ in batch]

    async def _patiently(self, operation: Callable[[], Awaitable[T]]) -> T | None:
        """Write, again and again while PostgreSQL or the artifact store is away; None: the leases must be gone. The writes' numbers
        make that safe."""
        loop = asyncio.get_running_loop()
        give_up, pause = loop.time() + self._lease, 0.1
        while True:
            try:
                return await operation()
            except Unavailable as error:
                if loop.time() >= give_up:
                    return None
                log.warning("run.write_waits", error=error.detail)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)


@asynccontextmanager
async def open_writer(database: Database, values: Values, *, lease: float) -> AsyncIterator[GroupedWriter]:
    """A writer that works until the end of the context."""
    writer = GroupedWriter(database, values, lease)
    async with carrying(writer.gatherer), carrying(writer.reserving):
        yield writer
