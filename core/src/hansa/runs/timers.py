"""Wakes what waits for its time: timers, runs that start or try again later, approvals and events that are given up.

Every worker looks; a wait that one has taken up is looked at by the others only when it is not settled soon. The clock is the
database's.
"""

import asyncio

import structlog

from hansa.bus.connection import Bus
from hansa.bus.subjects import runs_ready, runs_told
from hansa.db.pool import Database
from hansa.errors import Unavailable
from hansa.runs import store

log = structlog.stdlib.get_logger("hansa.worker")
BATCH = 100
AGAIN_SECONDS = 5.0


class Timers:
    """Looks for what is due in one database, at the latest every `poll` seconds."""

    def __init__(self, database: Database, bus: Bus, region: str, *, poll: float) -> None:
        self._database = database
        self._bus = bus
        self._region = region
        self._poll = poll

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            pause = self._poll
            if self._database.trouble is not None:
                await asyncio.sleep(pause)  # which was told when it began
                continue
            try:
                waits, next_one = await store.due(self._database, BATCH, again=AGAIN_SECONDS)
                for wait in waits:
                    outcome = await store.expire(self._database, wait)
                    await ring_for(self._bus, self._region, outcome, str(wait.run_id), bell=self._database.bell)
                if len(waits) == BATCH:
                    pause = 0.0
                elif next_one is not None:
                    pause = min(max(next_one, 0.001), self._poll)
            except Unavailable as error:
                log.warning("worker.timers_wait", error=error.detail)
            await asyncio.sleep(pause)


async def ring_for(bus: Bus, region: str, outcome: str, run_id: str, *, bell: bytes) -> None:
    """Tell workers what has become of a wait of a run, see hansa.wait_resolve; `bell` is that of the run's database."""
    if outcome == "queued":
        await bus.ring(runs_ready(region), bell)
    elif outcome == "running":
        await bus.ring(runs_told(region), f"look {run_id}".encode())
