"""Carries the writes of all runs of a process to the database: those of one tenant together, in one transaction and one round trip.

While one transaction is being committed the next writes gather, so the more there is to do, the less each costs. A batch that the
database refuses is written again one by one, so that one run's defect is no other's.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

import structlog

from hansa.db.pool import Database
from hansa.errors import Unavailable
from hansa.runs import store
from hansa.runs.log.keeping import Values
from hansa.runs.model import Claim, Write, Written
from hansa.runs.values import columns

log = structlog.stdlib.get_logger("hansa.runs")
BATCH = 128
Item = tuple[Claim, Write, "asyncio.Future[Written | None]"]
T = TypeVar("T")


class GroupedWriter:
    """Implements `hansa.runs.journal.Writer`. Use `open_writer`."""

    def __init__(self, database: Database, values: Values, lease: float) -> None:
        self._database = database
        self._values = values
        self._lease = lease
        self._waiting: dict[UUID, list[Item]] = {}
        self._ready = asyncio.Event()

    async def write(self, claim: Claim, write: Write) -> Written | None:
        large = self._values.large(write.taken)
        # Before its turn comes: a slow artifact store holds up this run and no other.
        if large and await self._patiently(lambda: self._values.put_large(claim.tenant_id, large)) is None:
            return None
        done: asyncio.Future[Written | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(claim.tenant_id, []).append((claim, write, done))
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
            batch, later = _distinct(self._waiting.pop(tenant_id))
            if later:
                self._waiting[tenant_id] = later  # to the end of the line: other tenants first
            await self._carry(batch)

    async def _carry(self, batch: list[Item]) -> None:
        try:
            found = await self._patiently(lambda: self._write(batch)) or {}
        except asyncio.CancelledError:
            for _, _, done in batch:
                done.cancel()
            raise
        # Whatever the database says of a batch is said of each write by itself, and told to the run that it is about.
        except Exception as error:
            if len(batch) == 1:
                self._settle(batch[0], error)
                return
            log.warning("run.batch_refused", writes=len(batch), error=str(error))
            for item in batch:
                await self._carry([item])
            return
        for item in batch:
            self._settle(item, found.get(item[0].id))

    def _settle(self, item: Item, outcome: Written | Exception | None) -> None:
        done = item[2]
        if done.done():
            return
        if isinstance(outcome, Exception):
            done.set_exception(outcome)
        else:
            done.set_result(outcome)

    async def _write(self, batch: list[Item]) -> dict[UUID, Written]:
        taken = {digest: body for _, write, _ in batch for digest, body in write.taken.items()}
        return await store.write(self._database, [(claim, write) for claim, write, _ in batch], columns(taken, self._values.large(taken)))

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


def _distinct(items: list[Item]) -> tuple[list[Item], list[Item]]:
    """A batch in which each run stands once (a fenced claim may write beside its successor), and the rest."""
    batch: list[Item] = []
    later: list[Item] = []
    runs = set[UUID]()
    for item in items:
        if len(batch) < BATCH and item[0].id not in runs:
            runs.add(item[0].id)
            batch.append(item)
        else:
            later.append(item)
    return batch, later


@asynccontextmanager
async def open_writer(database: Database, values: Values, *, lease: float, lanes: int = 2) -> AsyncIterator[GroupedWriter]:
    """A writer with so many transactions at a time at most."""
    writer = GroupedWriter(database, values, lease)
    tasks = [asyncio.create_task(writer.carry(), name=f"writer {lane}") for lane in range(lanes)]
    try:
        yield writer
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
