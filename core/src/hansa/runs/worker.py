"""The worker: claims runs, drives them side by side, renews their leases, hears what is wanted of them, hands over when told to stop.

Recovery has no step of its own: a run whose lease has run out is claimed like any other, by anyone. Each database has its own loops, so
that one which is slow or away holds up no other.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import structlog

from hansa.auth import store as auth_store
from hansa.bus.subjects import runs_ready, runs_told
from hansa.db.pool import Database
from hansa.errors import HansaError, Unavailable
from hansa.runs import store
from hansa.runs.equipment import Equipment
from hansa.runs.executor import Driven, Wish
from hansa.runs.model import Claim, Loaded
from hansa.runs.timers import Timers
from hansa.settings import WorkerSettings
from hansa.tenants.service import tenant_id as id_of

log = structlog.stdlib.get_logger("hansa.worker")
SWEEP_SECONDS = 600.0
AGAIN_SECONDS = 1.0
"""After so many seconds a loop over a tenant's own database is begun again that broke."""
FOLLOW_SECONDS = 0.025
"""So long after a run has ended it is looked what else may begin for that, unless a bell has rung meanwhile."""
SURE = 2
"""After so many looks in a row that have found something it is looked at once."""
STOP_SECONDS = 5.0
"""How long a cancelled run is waited for: a plugin that will not stop holds up no hand-over, and its writes are fenced."""


def pools(settings: WorkerSettings) -> list[str]:
    """The pools whose runs are taken: those of the tenant that the worker is for, or those of all that share workers."""
    prefix = f"{id_of(settings.tenant)}/" if settings.tenant else ""
    return [f"{prefix}{pool.strip()}" for pool in settings.pools.split(",") if pool.strip()]


class Source:
    """One database from which runs are taken. `hungry`: all slots were taken when it was its turn.

    The end of a run may let another one begin, of its session, agent or tenant, and no bell is rung for that. Mostly there is none: it is
    looked for at once only as long as it was found the last times, else a moment later, with what has come by then.
    """

    def __init__(self, database: Database, equipment: Equipment, settings: WorkerSettings) -> None:
        self.database = database
        self.wake = asyncio.Event()
        self.hungry = False
        self._found = 0
        self._ended = False
        self._later: asyncio.TimerHandle | None = None
        self.turns = {pool: store.Turn() for pool in pools(settings)}
        self.timers = Timers(database, equipment.bus, equipment.region, poll=settings.poll_seconds)
        self.retention = equipment.retention if database is equipment.database else equipment.retention.of(database)

    def rung(self) -> None:
        """There is something to claim."""
        self._ended = False
        self.wake.set()

    def ended(self) -> None:
        """A run has ended."""
        if self._found >= SURE:
            self._look()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(FOLLOW_SECONDS, self._look)

    def looks(self) -> bool:
        """From here on is looked; what ends after this is looked for again. Whether it is for no other reason than that runs have ended."""
        only_ended, self._ended = self._ended, False
        self.wake.clear()
        if self._later is not None:
            self._later.cancel()
            self._later = None
        return only_ended

    def followed(self, found: int) -> None:
        """So many were claimed when it was looked for no other reason than that runs have ended."""
        self._found = self._found + 1 if found else 0

    def _look(self) -> None:
        self._ended = not self.wake.is_set()
        self.wake.set()


class Worker:
    """One worker process's share of the work. `run` returns after `stopping` is set and the grace time is over."""

    def __init__(self, equipment: Equipment, settings: WorkerSettings, stopping: asyncio.Event) -> None:
        self._equipment = equipment
        self._settings = settings
        self._stopping = stopping
        self._active: dict[UUID, tuple[asyncio.Task[None], Driven]] = {}
        self._loading: dict[UUID, Wish | None] = {}
        self._reserved = 0
        """Slots for which a claim is under way."""
        self._sources = {each: Source(each, equipment, settings) for each in equipment.database.every}

    async def run(self) -> None:
        bus, region = self._equipment.bus, self._equipment.region
        self._equipment.metrics.running.set_function(lambda: len(self._active))
        async with bus.listen(runs_ready(region), self._rung), bus.listen(runs_told(region), self._told):
            claiming = [self._loop(source, self._claim_loop, "claim") for source in self._claimed_from()]
            loops = list(claiming)
            for source in self._sources.values():
                loops.append(self._loop(source, self._renew_loop, "renew"))
                loops.append(self._loop(source, self._sweep_loop, "sweep"))
                loops.append(self._loop(source, lambda each: each.timers.run(), "timers"))
            stop = asyncio.create_task(self._stopping.wait(), name="worker.stop")
            done, _ = await asyncio.wait([stop, *loops], return_when=asyncio.FIRST_COMPLETED)
            self._stopping.set()
            for source in self._sources.values():
                source.wake.set()
            await asyncio.wait(claiming)  # they end by themselves: what they have just claimed must be handed over too
            await self._drain()
            for task in (stop, *loops):
                task.cancel()
            await asyncio.gather(stop, *loops, return_exceptions=True)
            for task in done - {stop}:
                task.result()  # a loop that ended has failed: let the process say so and be started again

    def _claimed_from(self) -> Sequence[Source]:
        """Where there may be runs of the pools that this worker serves."""
        if not self._settings.tenant:
            return list(self._sources.values())
        return [self._sources[self._equipment.database.of(id_of(self._settings.tenant))]]

    def _loop(self, source: Source, loop: Callable[[Source], Awaitable[None]], name: str) -> asyncio.Task[None]:
        """A task for it. What goes wrong with a tenant's own database in a way that nobody thought of ends no other tenant's runs."""

        async def kept() -> None:
            while True:
                try:
                    await loop(source)
                    return
                # Whatever it is, it is told, and the others go on; with the platform's own database the process ends of it, as ever.
                except Exception:
                    if not source.database.name:
                        raise
                    log.exception("worker.loop_broke", loop=name, database=source.database.name)
                    await asyncio.sleep(AGAIN_SECONDS)

        return asyncio.create_task(kept(), name=f"worker.{name} {source.database.name}".rstrip())

    async def _rung(self, bell: bytes) -> None:
        for source in self._sources.values():
            if source.database.bell == bell:
                source.rung()

    async def _told(self, payload: bytes) -> None:
        word, _, run_id = payload.decode().partition(" ")
        active = self._active.get(UUID(run_id))
        if active is None:
            if word != "look" and UUID(run_id) in self._loading:
                self._loading[UUID(run_id)] = Wish(word)
            return
        if word != "look":
            active[1].want(Wish(word))
            return
        try:
            await active[1].look()
        except Unavailable as error:
            log.warning("worker.look_waits", run_id=run_id, error=error.detail)

    async def _claim_loop(self, source: Source) -> None:
        while not self._stopping.is_set():
            only_ended = source.looks()
            free = self._settings.concurrency - len(self._active) - self._reserved
            # Where others claim too, never all that is free: a database that does not answer must not hold it.
            share = free if len(self._sources) == 1 else (free + 1) // 2
            source.hungry = free <= 0
            claims = await self._claimed(source, share) if free > 0 else []
            if only_ended and free > 0:
                source.followed(len(claims))
            if (len(claims) < share or free <= 0) and not self._stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.poll_seconds):
                        await source.wake.wait()

    async def _claimed(self, source: Source, share: int) -> list[Claim]:
        """Runs that were claimed and are driven from now on."""
        self._reserved += share
        try:
            claims = await self._claim(source, share)
            self._equipment.metrics.claimed.inc(len(claims))
            await self._begin(claims)
        finally:
            self._reserved -= share
        if len(claims) < share:
            self._feed()
        return claims

    def _feed(self) -> None:
        """There are free slots: whoever went without shall look again."""
        for source in self._sources.values():
            if source.hungry:
                source.wake.set()

    async def _claim(self, source: Source, free: int) -> list[Claim]:
        """Runs of the pools that this worker serves, the first named first."""
        claims: list[Claim] = []
        if source.database.trouble is not None:
            return claims  # which was told when it began
        try:
            for pool, turn in source.turns.items():
                if len(claims) < free:
                    found, source.turns[pool] = await store.claim(
                        source.database,
                        self._equipment.worker,
                        free - len(claims),
                        pool=pool,
                        turn=turn,
                        lease=self._settings.lease_seconds,
                    )
                    # What a tenant's own database says of other tenants is not believed.
                    claims.extend(each for each in found if self._equipment.database.of(each.tenant_id) is source.database)
        except Unavailable as error:
            log.warning("worker.claim_waits", error=error.detail)
        return claims

    async def _begin(self, claims: Sequence[Claim]) -> None:
        """Load claimed runs, those of a tenant together, and drive them. What can't be loaded is left to its lease."""
        tenants: dict[UUID, list[Claim]] = {}
        for claim in claims:
            tenants.setdefault(claim.tenant_id, []).append(claim)
        self._loading |= {claim.id: None for claim in claims}
        for tenant_id, own in tenants.items():
            try:
                loaded = await store.load(self._equipment.database, tenant_id, own)
            except Unavailable as error:
                log.warning("worker.load_waits", runs=len(own), error=error.detail)
                loaded = {}
            for claim in own:
                wish = self._loading.pop(claim.id, None)
                if claim.id in loaded:
                    self._drive(claim, loaded[claim.id], wish)

    def _drive(self, claim: Claim, loaded: Loaded, wish: Wish | None) -> None:
        older = self._active.get(claim.id)
        if older is not None:
            older[1].want(Wish.LEAVE)  # this worker slept through its own lease, and here is the run again
        driven = Driven(self._equipment, claim, loaded)
        if wish is not None:
            driven.want(wish)  # said after it was read and before it is driven
        self._active[claim.id] = (asyncio.create_task(self._driven(driven), name=f"run {claim.id}"), driven)

    async def _driven(self, driven: Driven) -> None:
        claim = driven.claim
        try:
            await driven.drive()
        except asyncio.CancelledError:
            log.info("run.left", run_id=str(claim.id))
        except Unavailable as error:
            pause = error.retry_after or self._settings.poll_seconds
            log.warning("run.waits", run_id=str(claim.id), error=error.detail, seconds=pause)
            await self._release([claim], pause=pause)
        except HansaError as error:
            log.warning("run.left", run_id=str(claim.id), error=error.detail)
        # A defect of ours in one run must not touch the others: it is logged, and the lease brings the run back.
        except Exception:
            log.exception("run.left", run_id=str(claim.id))
        finally:
            active = self._active.get(claim.id)
            if active is not None and active[1] is driven:
                del self._active[claim.id]
            self._sources[self._equipment.database.of(claim.tenant_id)].ended()
            self._feed()

    async def _renew_loop(self, source: Source) -> None:
        pause = min(self._settings.renew_seconds, self._settings.lease_seconds / 3)
        while True:
            await asyncio.sleep(pause)
            mine = [each for _, each in self._active.values() if self._equipment.database.of(each.claim.tenant_id) is source.database]
            driven = [each for each in mine if not each.is_stuck]
            if not driven:
                continue
            try:
                held = await store.renew(source.database, [each.claim for each in driven], lease=self._settings.lease_seconds)
            except Unavailable as error:
                log.warning("worker.renew_waits", error=error.detail)
                continue
            for each in driven:
                wish = held.get(each.claim.id, Wish.LEAVE)  # the lease was lost: whoever has it now goes on
                if wish is not None:
                    each.want(Wish(wish))

    async def _sweep_loop(self, source: Source) -> None:
        while True:
            try:
                await auth_store.sweep(source.database)
                await source.retention.sweep()
            except Unavailable as error:
                log.warning("worker.sweep_waits", error=error.detail)
            await asyncio.sleep(SWEEP_SECONDS)

    async def _drain(self) -> None:
        """Let runs finish for the grace time; then stop the rest and give them back, so that nobody waits for their leases."""
        if self._active:
            await asyncio.wait([task for task, _ in self._active.values()], timeout=self._settings.grace_seconds)
        rest = list(self._active.values())
        for task, _ in rest:
            task.cancel()
        if rest:
            await asyncio.wait([task for task, _ in rest], timeout=STOP_SECONDS)
            await self._release([driven.claim for _, driven in rest])
            for bell in {self._equipment.database.of(driven.claim.tenant_id).bell for _, driven in rest}:
                await self._equipment.bus.ring(runs_ready(self._equipment.region), bell)
        log.info("worker.stopped", handed_over=len(rest))

    async def _release(self, claims: list[Claim], *, pause: float = 0.0) -> None:
        databases: dict[Database, list[Claim]] = {}
        for claim in claims:
            databases.setdefault(self._equipment.database.of(claim.tenant_id), []).append(claim)
        await asyncio.gather(*(_release(database, own, pause) for database, own in databases.items()))


async def _release(database: Database, claims: list[Claim], pause: float) -> None:
    try:
        await store.release(database, claims, pause=pause)
    except Unavailable as error:
        log.warning("worker.release_failed", error=error.detail, runs=len(claims))
