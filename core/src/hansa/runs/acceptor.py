"""Accepts runs, those of one tenant that come at the same time together (`hansa.db.gathering`); workers are told once a batch.

A run's id is given before it is accepted, and idempotency keys make it safe for callers to come again.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from hansa.bus.connection import Bus
from hansa.bus.subjects import runs_ready
from hansa.db.gathering import Gatherer, carrying
from hansa.db.pool import Database
from hansa.runs import store
from hansa.runs.store import Accept

BATCH = 64
Accepted = tuple[str, str | None]


class Acceptor:
    """Use `open_acceptor`."""

    def __init__(self, database: Database, bus: Bus, region: str) -> None:
        self._database = database
        self._bus = bus
        self._region = region
        self.gatherer = Gatherer(self._start_many, database=database, size=BATCH)

    async def accept(self, accept: Accept) -> Accepted:
        """(outcome, answer as JSON text); the outcomes are in the SQL function run_start."""
        if accept.new.session_id is None:
            return await self.gatherer.done(accept.principal.tenant_id, accept)
        database = self._database.of(accept.principal.tenant_id)
        answer = await store.start(database, self._region, accept)  # it may wait for its session
        await self._bus.ring(runs_ready(self._region), database.bell)
        return answer

    async def _start_many(self, accepts: Sequence[Accept]) -> list[Accepted]:
        database = self._database.of(accepts[0].principal.tenant_id)
        answers = await store.start_many(database, self._region, accepts)
        await self._bus.ring(runs_ready(self._region), database.bell)
        return answers


@asynccontextmanager
async def open_acceptor(database: Database, bus: Bus, region: str) -> AsyncIterator[Acceptor]:
    acceptor = Acceptor(database, bus, region)
    async with carrying(acceptor.gatherer):
        yield acceptor
