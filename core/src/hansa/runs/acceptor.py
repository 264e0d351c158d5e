"""Accepts runs, those of one tenant that come at the same time together, in one transaction and one round trip.

Nobody waits for company: the first goes at once, and while it is being committed the next ones gather; workers are told once a batch.
A batch that the database refuses is accepted again one by one, so that one caller's defect is no other's. Idempotency keys make that
safe for callers; a run's id is given before, so that it is safe without.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import structlog

from hansa.bus.connection import Bus
from hansa.bus.subjects import runs_ready
from hansa.db.pool import Database
from hansa.errors import Unavailable
from hansa.runs import store
from hansa.runs.store import Accept

log = structlog.stdlib.get_logger("hansa.runs")
BATCH = 64
Accepted = tuple[str, str | None]
Item = tuple[Accept, "asyncio.Future[Accepted]"]


class Acceptor:
    """Use `open_acceptor`."""

    def __init__(self, database: Database, bus: Bus, region: str) -> None:
        self._database = database
        self._bus = bus
        self._region = region
        self._waiting: dict[UUID, list[Item]] = {}
        self._ready = asyncio.Event()

    async def accept(self, accept: Accept) -> Accepted:
        """(outcome, answer as JSON text); the outcomes are in the SQL function run_start."""
        if accept.new.session_id is not None:
            answer = await store.start(self._database, self._region, accept)  # it may wait for its session
            await self._bus.ring(runs_ready(self._region))
            return answer
        done: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(accept.principal.tenant_id, []).append((accept, done))
        self._ready.set()
        return await done

    async def carry(self) -> None:
        """Carry batches until cancelled; several of these run side by side."""
        while True:
            await self._ready.wait()
            tenant_id = next(iter(self._waiting), None)
            if tenant_id is None:
                self._ready.clear()
                continue
            waiting = self._waiting.pop(tenant_id)
            if len(waiting) > BATCH:
                self._waiting[tenant_id] = waiting[BATCH:]  # to the end of the line: other tenants first
            await self._carry(waiting[:BATCH])

    async def _carry(self, batch: list[Item]) -> None:
        accepts = [accept for accept, _ in batch]
        try:
            answers = await store.start_many(self._database, self._region, accepts)
        except asyncio.CancelledError:
            for _, done in batch:
                done.cancel()
            raise
        except Unavailable as error:
            for _, done in batch:
                _fail(done, error)
            return
        # Whatever the database says of a batch is said of each by itself, and told to the caller that it is about.
        except Exception as error:
            if len(batch) == 1:
                _fail(batch[0][1], error)
                return
            log.warning("run.batch_refused", runs=len(batch), error=str(error))
            for item in batch:
                await self._carry([item])
            return
        await self._bus.ring(runs_ready(self._region))
        for (_, done), answer in zip(batch, answers, strict=True):
            if not done.done():
                done.set_result(answer)


def _fail(done: "asyncio.Future[Accepted]", error: Exception) -> None:
    if not done.done():
        done.set_exception(error)


@asynccontextmanager
async def open_acceptor(database: Database, bus: Bus, region: str, *, lanes: int = 2) -> AsyncIterator[Acceptor]:
    """An acceptor with so many transactions at a time at most."""
    acceptor = Acceptor(database, bus, region)
    tasks = [asyncio.create_task(acceptor.carry(), name=f"acceptor {lane}") for lane in range(lanes)]
    try:
        yield acceptor
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
