"""Probes the walls between tenants again and again, one worker of a region at a time, and keeps what it found: the condition
`IsolationVerified` of every tenant is made of that. Each database is probed by itself: that of a tenant's own must not even take a row of
anyone else.
"""

import asyncio
from uuid import UUID

import structlog

from hansa.db import selfcheck, walls
from hansa.db.pool import Database
from hansa.errors import Unavailable
from hansa.tenants import store

log = structlog.stdlib.get_logger("hansa.isolation")
MESSAGE_CHARACTERS = 2_000


def stale_seconds(seconds: float) -> float:
    """How old the last probe may be before it says nothing any more."""
    return max(90.0, 3 * seconds)


class Prober:
    """One worker's share. `extra` has what else is to be tried, such as what NATS lets through; each gives the holes it found."""

    def __init__(self, database: Database, region: str, seconds: float, *, platform: UUID | None = None) -> None:
        """`platform`: of a tenant's own database, to which installation it belongs."""
        self._platform = platform
        self._database = database
        self._region = region
        self._seconds = seconds
        self._extra: list[store.Probe] = []

    def also(self, probe: store.Probe) -> None:
        """Try this too, each time."""
        self._extra.append(probe)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except Unavailable as error:
                log.warning("isolation.waits", error=error.detail)
            # A defect of ours in a probe must not end the worker's runs: it is logged, and the condition says that no probe has ended.
            except Exception:
                log.exception("isolation.broke")
            await asyncio.sleep(self._seconds / 2)

    async def look(self) -> list[str] | None:
        """Probe, if it is time and nobody else does; the holes that were found, None: it was not our turn."""
        if not await store.take_probe(self._database, self._region, self._seconds):
            return None
        holes = await selfcheck.findings(self._database, platform=self._platform, running=True)
        probed = await (walls.probe_own(self._database) if self._database.name else walls.probe(self._database))
        holes += probed.holes
        for probe in self._extra:
            holes += await probe()
        await store.keep_probe(self._database, self._region, "; ".join(holes)[:MESSAGE_CHARACTERS])
        if holes:
            log.error("isolation.breached", database=self._database.name, holes=holes)
        else:
            log.debug("isolation.verified", database=self._database.name, tables=probed.tables)
        if probed.unwritten:
            log.warning("isolation.unwritten", tables=probed.unwritten)
        return holes
