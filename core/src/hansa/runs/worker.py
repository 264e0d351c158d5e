"""The worker: claims runs, drives them side by side, renews their leases, hears of cancellations, hands over when told to stop.

Recovery has no step of its own: a run whose lease has run out is claimed like any other, by anyone.
"""

import asyncio
import contextlib

import structlog

from hansa.auth import store as auth_store
from hansa.bus.subjects import runs_cancel, runs_ready
from hansa.errors import HansaError, Unavailable
from hansa.runs import store
from hansa.runs.executor import Canceling, Equipment, execute
from hansa.runs.model import Claim
from hansa.settings import WorkerSettings

log = structlog.stdlib.get_logger("hansa.worker")
SWEEP_SECONDS = 600.0
STOP_SECONDS = 5.0
"""How long a cancelled run is waited for: a plugin that will not stop holds up no hand-over, and its writes are fenced."""


class Worker:
    """One worker process's share of the work. `run` returns after `stopping` is set and the grace time is over."""

    def __init__(self, equipment: Equipment, settings: WorkerSettings, stopping: asyncio.Event) -> None:
        self._equipment = equipment
        self._settings = settings
        self._stopping = stopping
        self._wake = asyncio.Event()
        self._active: dict[Claim, tuple[asyncio.Task[None], Canceling]] = {}

    async def run(self) -> None:
        bus, region = self._equipment.bus, self._equipment.region
        async with bus.listen(runs_ready(region), self._rung), bus.listen(runs_cancel(region), self._asked_to_cancel):
            loops = [
                asyncio.create_task(self._claim_loop(), name="worker.claim"),
                asyncio.create_task(self._renew_loop(), name="worker.renew"),
                asyncio.create_task(self._sweep_loop(), name="worker.sweep"),
            ]
            stop = asyncio.create_task(self._stopping.wait(), name="worker.stop")
            done, _ = await asyncio.wait([stop, *loops], return_when=asyncio.FIRST_COMPLETED)
            self._stopping.set()
            self._wake.set()
            await asyncio.wait([loops[0]])  # ends by itself: what it has just claimed must be handed over too
            await self._drain()
            for task in (stop, *loops):
                task.cancel()
            await asyncio.gather(stop, *loops, return_exceptions=True)
            for task in done - {stop}:
                task.result()  # a loop that ended has failed: let the process say so and be started again

    async def _rung(self, _: bytes) -> None:
        self._wake.set()

    async def _asked_to_cancel(self, payload: bytes) -> None:
        for claim in [claim for claim in self._active if str(claim.id).encode() == payload]:
            self._cancel(claim)

    def _cancel(self, claim: Claim) -> None:
        task, canceling = self._active[claim]
        if not canceling.wanted:
            canceling.wanted = True
            task.cancel()

    async def _claim_loop(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            free = self._settings.concurrency - len(self._active)
            claims = await self._claim(free) if free > 0 else []
            for claim in claims:
                self._begin(claim)
            if (len(claims) < free or free <= 0) and not self._stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._settings.poll_seconds)

    def _begin(self, claim: Claim) -> None:
        for older in [older for older in self._active if older.id == claim.id]:
            self._active[older][0].cancel()  # this worker slept through its own lease, and here is the run again
        canceling = Canceling()
        task = asyncio.create_task(self._drive(claim, canceling), name=f"run {claim.id}")
        self._active[claim] = (task, canceling)

    async def _claim(self, free: int) -> list[Claim]:
        try:
            return await store.claim(self._equipment.database, self._equipment.worker, free, lease=self._settings.lease_seconds)
        except Unavailable as error:
            log.warning("worker.claim_waits", error=error.detail)
            return []

    async def _drive(self, claim: Claim, canceling: Canceling) -> None:
        try:
            await execute(self._equipment, claim, canceling)
        except asyncio.CancelledError:
            log.info("run.left", run_id=str(claim.id))
            if canceling.wanted:
                await self._release([claim])  # it was not yet being driven: whoever loads it next will cancel it
        except HansaError as error:
            log.warning("run.left", run_id=str(claim.id), error=error.detail)
        # A defect of ours in one run must not touch the others: it is logged, and the lease brings the run back.
        except Exception:
            log.exception("run.left", run_id=str(claim.id))
        finally:
            self._active.pop(claim, None)
            self._wake.set()

    async def _renew_loop(self) -> None:
        pause = min(self._settings.renew_seconds, self._settings.lease_seconds / 3)
        while True:
            await asyncio.sleep(pause)
            claims = list(self._active)
            if not claims:
                continue
            try:
                held = await store.renew(self._equipment.database, claims, lease=self._settings.lease_seconds)
            except Unavailable as error:
                log.warning("worker.renew_waits", error=error.detail)
                continue
            for claim in claims:
                if claim in self._active and held.get(claim.id):
                    self._cancel(claim)
                elif claim in self._active and claim.id not in held:
                    self._active[claim][0].cancel()  # the lease was lost: whoever has it now goes on

    async def _sweep_loop(self) -> None:
        while True:
            try:
                await auth_store.sweep(self._equipment.database)
            except Unavailable as error:
                log.warning("worker.sweep_waits", error=error.detail)
            await asyncio.sleep(SWEEP_SECONDS)

    async def _drain(self) -> None:
        """Let runs finish for the grace time; then stop the rest and give them back, so that nobody waits for their leases."""
        if self._active:
            await asyncio.wait([task for task, _ in self._active.values()], timeout=self._settings.grace_seconds)
        rest = dict(self._active)
        for task, _ in rest.values():
            task.cancel()
        if rest:
            await asyncio.wait([task for task, _ in rest.values()], timeout=STOP_SECONDS)
            await self._release(list(rest))
        log.info("worker.stopped", handed_over=len(rest))

    async def _release(self, claims: list[Claim]) -> None:
        try:
            await store.release(self._equipment.database, claims)
        except Unavailable as error:
            log.warning("worker.release_failed", error=error.detail, runs=len(claims))
        await self._equipment.bus.ring(runs_ready(self._equipment.region))
