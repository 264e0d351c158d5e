"""Carries many small pieces of work to the database: those of one tenant that come at the same time together, in one transaction.

Nobody waits for company: the first goes at once, and while it is being committed the next ones gather; so the more there is to do,
the less each costs. A batch that the database refuses is done again one by one, so that one caller's defect is no other's. Each database
has lanes of its own, so that one which is slow or away holds up no other. Must not know what the pieces are.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar
from uuid import UUID

import structlog

from hansa.db.background import background
from hansa.db.pool import Database
from hansa.errors import Unavailable

log = structlog.stdlib.get_logger("hansa.db")
T = TypeVar("T")
A = TypeVar("A")


class Gatherer(Generic[T, A]):
    """Works inside `carrying`. `do` does a batch of one tenant, all of it or nothing, and answers for each piece; pieces with the same
    `mark` are never in one batch. `abreast`: so many batches of a tenant at once; the fewer, the larger they are. `database`: knows
    where each tenant is; None: all in one."""

    def __init__(
        self,
        do: Callable[[Sequence[T]], Awaitable[Sequence[A]]],
        *,
        size: int,
        database: Database | None = None,
        abreast: int = 1,
        mark: Callable[[T], Hashable] = id,
    ) -> None:
        self._do = do
        self._database = database
        self._size = size
        self._abreast = abreast
        self._mark = mark
        self._busy: Counter[UUID] = Counter()
        self._taken: Counter[Database | None] = Counter()
        self._waiting: dict[UUID, list[tuple[T, asyncio.Future[A]]]] = {}
        self._ready = asyncio.Event()

    async def done(self, tenant_id: UUID, piece: T) -> A:
        """Have a piece done; its answer. Raises what `do` raises for it."""
        done: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant_id, []).append((piece, done))
        self._ready.set()
        return await done

    @property
    def databases(self) -> int:
        """In how many databases the tenants are."""
        return len(self._database.every) if self._database is not None else 1

    async def carry(self, lanes: int) -> None:
        """Carry batches until cancelled; several of these run side by side, and have so many lanes in each database."""
        while True:
            await self._ready.wait()
            tenant_id = next((each for each in self._waiting if self._free(each, lanes)), None)
            if tenant_id is None:
                self._ready.clear()
                continue
            batch, later = self._parted(self._waiting.pop(tenant_id))
            if later:
                self._waiting[tenant_id] = later  # to the end of the line: other tenants first
            database = self._of(tenant_id)
            self._busy[tenant_id] += 1
            self._taken[database] += 1
            try:
                await self._carry(batch)
            finally:
                self._busy[tenant_id] -= 1
                self._taken[database] -= 1
                if not self._busy[tenant_id]:
                    del self._busy[tenant_id]
                self._ready.set()

    def close(self) -> None:
        """Nothing more is carried: who still waits is told so."""
        for waiting in self._waiting.values():
            for _, done in waiting:
                done.cancel()
        self._waiting.clear()

    def _of(self, tenant_id: UUID) -> Database | None:
        return None if self._database is None else self._database.of(tenant_id)

    def _free(self, tenant_id: UUID, lanes: int) -> bool:
        return self._busy[tenant_id] < self._abreast and self._taken[self._of(tenant_id)] < lanes

    def _parted(self, waiting: list[tuple[T, "asyncio.Future[A]"]]) -> tuple[list[tuple[T, "asyncio.Future[A]"]], ...]:
        """A batch, and the rest."""
        batch: list[tuple[T, asyncio.Future[A]]] = []
        later: list[tuple[T, asyncio.Future[A]]] = []
        marks = set[Hashable]()
        for piece, done in waiting:
            fits = len(batch) < self._size and self._mark(piece) not in marks
            marks.add(self._mark(piece))
            (batch if fits else later).append((piece, done))
        return batch, later

    async def _carry(self, batch: Sequence[tuple[T, "asyncio.Future[A]"]]) -> None:
        try:
            answers = await self._do([piece for piece, _ in batch])
        except asyncio.CancelledError:
            for _, done in batch:
                done.cancel()
            raise
        except Unavailable as error:
            _fail(batch, error)
        # Whatever the database says of a batch is said of each piece by itself, and told to the caller that it is about.
        except Exception as error:
            if len(batch) == 1:
                _fail(batch, error)
                return
            log.warning("db.batch_refused", pieces=len(batch), error=str(error))
            try:
                for item in batch:
                    await self._carry([item])
            except asyncio.CancelledError:
                for _, done in batch:
                    done.cancel()  # those that it has not come to; the others know already
                raise
        else:
            for (_, done), answer in zip(batch, answers, strict=True):
                if not done.done():
                    done.set_result(answer)


def _fail(batch: "Sequence[tuple[T, asyncio.Future[A]]]", error: Exception) -> None:
    for _, done in batch:
        if not done.done():
            done.set_exception(error)


@asynccontextmanager
async def carrying(gatherer: Gatherer[T, A], *, lanes: int = 2) -> AsyncIterator[None]:
    """Let a gatherer work, so many transactions at a time at most in each database."""
    try:
        async with background((f"gatherer {lane}", gatherer.carry(lanes)) for lane in range(lanes * gatherer.databases)):
            yield
    finally:
        gatherer.close()
