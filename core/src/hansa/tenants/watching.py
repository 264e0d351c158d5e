"""Looks after the databases that tenants have to themselves: whether each can be used, and what of the platform is kept in it too.

One that is away, not migrated, not the tenant's or not safe is not used until it is again; whoever asks for it is told so at once, and
nobody else notices. Warning: what a Region says reaches such a database up to `LOOK_SECONDS` later.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import structlog

from hansa.db import selfcheck
from hansa.db.background import background
from hansa.db.pool import Database, Trouble
from hansa.errors import Unavailable
from hansa.ids import tenant_id
from hansa.tenants import store
from hansa.tenants.mending import settle

log = structlog.stdlib.get_logger("hansa.database")
LOOK_SECONDS, AGAIN_SECONDS = 5.0, 1.0
"""Pause between looks at a database that can be used, and at one that can't."""
PATIENCE = 3.0


@asynccontextmanager
async def watching(database: Database, region: str) -> AsyncIterator[None]:
    """Every own database of a tenant has been looked at once when the context begins, and is looked at again and again until it ends."""
    if not database.own:
        yield
        return
    shared = await store.shared_among(database, [own.name for own in database.own])
    for name in shared:
        database.leave(tenant_id(name))
        log.warning(
            "database.not_used", tenant=name, hint="It has its rows in the platform's database. docs/tenants.md says how to move it."
        )
    platform: UUID = await database.call("SELECT id FROM hansa.installation")
    watches = [Watch(database, own, region, platform) for own in database.own]
    await asyncio.gather(*(watch.look() for watch in watches))
    async with background((f"database.watch {watch.own.name}", watch.run()) for watch in watches):
        yield


class Watch:
    """Of one tenant's `own` database."""

    def __init__(self, database: Database, own: Database, region: str, platform: UUID) -> None:
        self.own = own
        self._database = database
        self._probed = own.untroubled(timeout=PATIENCE)
        self._region = region
        self._platform = platform

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS if self.own.trouble is None else AGAIN_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Whether it can be used now."""
        before, found = self.own.trouble, await self._trouble()
        self.own.trouble = found
        if found is None:
            await self._settle()
        if found == before:
            return
        if found is None:
            log.info("database.usable", tenant=self.own.name)
        else:
            log.error("database.unusable", tenant=self.own.name, reason=found.reason, message=found.message)

    async def _settle(self) -> None:
        """Make whole what was cut off."""
        try:
            async with asyncio.timeout(PATIENCE):
                await settle(self._database, tenant_id(self.own.name))
        except (Unavailable, TimeoutError) as error:
            log.warning("database.follows_later", tenant=self.own.name, error=str(error) or type(error).__name__)
        # A defect here is no reason to leave the database alone: it is logged, and tried again.
        except Exception:
            log.exception("database.not_mended", tenant=self.own.name)

    async def _trouble(self) -> Trouble | None:
        try:
            async with asyncio.timeout(PATIENCE):
                # All of it only when it comes back: what goes wrong meanwhile the probes of workers find.
                if self.own.trouble is not None:
                    wrong = await selfcheck.findings(self._probed, platform=self._platform)
                    if wrong:
                        return Trouble("NotUsable", "; ".join(wrong))
                elif await self._probed.call("SELECT tenant FROM hansa.installation") != tenant_id(self.own.name):
                    return Trouble("NotUsable", "it is another one than it was")
                await store.copy_region(self._database, self._probed, self._region)
        except (Unavailable, TimeoutError):
            return Trouble("Unreachable", "it is not reachable")
        # A password that is not right, a schema that is not there: whatever it is, it is told, and looked at again.
        except Exception as error:
            return Trouble("NotUsable", f"{type(error).__name__}: {error}".splitlines()[0][:300])
        return None
