"""Deletes tenants, step by step. Every step may be cut off anywhere and done again, by this worker or another: which tenants are to go, and
how far each has come, stands in the database.

    stop     no request is under way any more, and no run is driven: the tenant is suspended, so workers let go of its runs
    export   with the policy Export: the bundle is written into the artifact store, part by part
    purge    what it has goes: messages in NATS, artifacts, workspaces, rows
    scan     every table with a tenant_id, the artifact store, the workspaces and NATS are looked through; if anything is left it is
             purged again, else the tenant's own row goes, and with it the last that is known of it but the deletion

The data key of a tenant is a row of it: it goes with the rows, and what was encrypted under it can't be read by anyone from then on, in
backups of the artifact store neither.
"""

import asyncio
import re
import shutil
from collections.abc import Sequence
from uuid import UUID

import structlog

from hansa import ids
from hansa.bus.queue import Queue
from hansa.bus.subjects import messages_sent
from hansa.db.pool import Database
from hansa.errors import Damaged, Unavailable
from hansa.runs.equipment import Equipment
from hansa.runs.leaving import exporting, store
from hansa.runs.leaving.store import Leaving

log = structlog.stdlib.get_logger("hansa.leaving")
LOOK_SECONDS = 5.0
"""Pause between looks for tenants to delete."""
AGAIN_SECONDS = 0.5
"""The same, while one is being deleted."""
LATE_SECONDS = 60.0
"""Pause between looks for what was written late of tenants that have gone."""
ROWS = 5_000
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Remover:
    """One worker's share. `queue` is where messages wait in NATS."""

    def __init__(self, equipment: Equipment, queue: Queue) -> None:
        self._equipment = equipment
        self._queue = queue
        self._database = equipment.database
        self._late_at = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            busy = False
            try:
                busy = await self.look()
            except Unavailable as error:
                log.warning("leaving.waits", error=error.detail)
            # A defect of ours here must not end the worker's runs: it is logged, and tried again.
            except Exception:
                log.exception("leaving.broke")
            await asyncio.sleep(AGAIN_SECONDS if busy else LOOK_SECONDS)

    async def look(self) -> bool:
        """Go one step on with every tenant that is to go, as far as nobody else does; whether there was one."""
        busy = False
        for leaving in await store.open_deletions(self._database):
            try:
                self._database.expect(leaving.tenant, leaving.database)
                busy = await self._go_on(leaving) or busy
            except Unavailable as error:  # the others go on
                log.warning("leaving.waits", tenant=leaving.name, error=error.detail)
            # A defect of ours, or of what one tenant has to itself, is no reason to keep the others.
            except Exception:
                log.exception("leaving.broke", tenant=leaving.name)
        await self._sweep_late()
        return busy

    async def _go_on(self, leaving: Leaving) -> bool:
        """Do what is next for a tenant, unless another worker is at it; whether there was something to do."""
        if not await store.hold(self._database, leaving.id):
            return False
        match leaving.step:
            case "stop":
                await self._stop(leaving)
            case "export":
                await self._export(leaving)
            case "purge":
                await store.condemn(self._database, leaving)
                await self._purge(leaving.tenant)
                await store.set_step(self._database, leaving.id, before="purge", step="scan")
            case _:
                await self._scan(leaving)
        await store.let_go(self._database, leaving.id)
        return True

    async def _stop(self, leaving: Leaving) -> None:
        if leaving.settled and not await store.working(self._database, leaving.tenant):
            step = "export" if leaving.policy == "Export" else "purge"
            await store.set_step(self._database, leaving.id, before="stop", step=step)
            log.info("leaving.stopped", tenant=leaving.name)

    async def _export(self, leaving: Leaving) -> None:
        artifacts, attempt, parts = self._equipment.artifacts, ids.new_id(), 0
        try:
            async for member in exporting.members(self._database, self._equipment.values, leaving.tenant, leaving.name):
                await artifacts.put_part(f"{leaving.id}/{attempt}", parts, member)
                parts += 1
        except Damaged as error:
            # Nothing goes that could not be exported: people decide, by restoring what is missing or by the policy Delete.
            log.error("leaving.export_failed", tenant=leaving.name, error=error.detail)
            raise Unavailable(f"the export of tenant {leaving.name} can't be written: {error.detail}") from error
        if await store.exported(self._database, leaving.id, attempt, parts):
            await artifacts.keep_attempt(leaving.id, attempt)
        log.info("leaving.exported", tenant=leaving.name, parts=parts)

    async def _purge(self, tenant: UUID) -> None:
        await self._queue.purge(messages_sent(self._equipment.region, tenant.hex))
        await self._equipment.artifacts.purge(tenant)
        await asyncio.to_thread(shutil.rmtree, self._equipment.workspaces / str(tenant), ignore_errors=True)
        for database in self._places(tenant):
            while await store.purge(database, tenant, ROWS):
                pass

    def _places(self, tenant: UUID) -> list[Database]:
        """The databases that have rows of a tenant, its own first."""
        own = self._database.of(tenant)
        return [self._database] if own is self._database else [own, self._database]

    async def _scan(self, leaving: Leaving) -> None:
        residue = await self._residue(leaving.tenant)
        await store.keep_residue(self._database, leaving.id, residue)
        if not residue and await self._finished(leaving):
            log.info("leaving.done", tenant=leaving.name)
            return
        log.warning("leaving.residue", tenant=leaving.name, residue=residue)
        await store.set_step(self._database, leaving.id, before="scan", step="purge")

    async def _finished(self, leaving: Leaving) -> bool:
        for database in self._places(leaving.tenant):
            async with database.system_transaction() as connection:
                if not await store.finish(connection, leaving):
                    return False
        return True

    async def _residue(self, tenant: UUID) -> dict[str, int]:
        """What there is of a tenant: place -> how much."""
        found = await store.residue(self._database, tenant)
        own = self._database.of(tenant)
        if own is not self._database:
            found |= {f"its own database: {table}": much for table, much in (await store.residue(own, tenant)).items()}
        found["artifacts"] = await self._equipment.artifacts.residue(tenant)
        found["workspaces"] = int(await asyncio.to_thread((self._equipment.workspaces / str(tenant)).exists))
        found["messages"] = await self._queue.count(messages_sent(self._equipment.region, tenant.hex))
        return {place: much for place, much in found.items() if much}

    async def _sweep_late(self) -> None:
        """A worker that was frozen while its tenant was deleted may have written of it since."""
        now = asyncio.get_running_loop().time()
        if now < self._late_at:
            return
        self._late_at = now + LATE_SECONDS
        await asyncio.to_thread(self._remove_workspaces, await store.deleted_among(self._database, self._own_workspaces()))
        for tenant in await store.late_tenants(self._database):
            try:
                residue = await self._residue(tenant)
                # Looking takes a while, and meanwhile the tenant may have been made anew: then what is there is its own.
                if residue and tenant in await store.late_tenants(self._database):
                    log.warning("leaving.late", tenant_id=str(tenant), residue=residue)
                    await self._purge(tenant)
            except Unavailable as error:
                log.warning("leaving.waits", tenant_id=str(tenant), error=error.detail)
            # As in `look`: another database in place of its own, say, knows of no deletion.
            except Exception:
                log.exception("leaving.broke", tenant_id=str(tenant))

    def _own_workspaces(self) -> list[UUID]:
        """Tenants that have a folder on this machine."""
        try:
            names = [path.name for path in self._equipment.workspaces.iterdir()]
        except FileNotFoundError:
            return []
        return [UUID(name) for name in names if ID.fullmatch(name)]

    def _remove_workspaces(self, tenants: Sequence[UUID]) -> None:
        """Of tenants that were deleted by workers on other machines."""
        for tenant in tenants:
            shutil.rmtree(self._equipment.workspaces / str(tenant), ignore_errors=True)
