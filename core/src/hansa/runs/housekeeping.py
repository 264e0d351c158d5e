"""What workers do beside runs, as named tasks that end together: removing tenants that are deleted, probing the walls between them,
telling of limits that are nearly used up, and saying that a worker of a tenant's own is there.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from hansa.bus.queue import Queue
from hansa.errors import Unavailable
from hansa.runs.equipment import Equipment
from hansa.runs.leaving.deletion import Remover
from hansa.settings import Settings
from hansa.tenants import store as tenant_store
from hansa.tenants.messaging import store as messaging_store
from hansa.tenants.probing import Prober
from hansa.tenants.service import tenant_id
from hansa.tenants.warnings import watch_limits

log = structlog.stdlib.get_logger("hansa.worker")
SEEN_SECONDS = 20.0
"""Pause between signs of life of a tenant's own worker."""


@asynccontextmanager
async def open_housekeeping(equipment: Equipment, settings: Settings, queue: Queue) -> AsyncIterator[None]:
    """Keep house while the context is open. A task that fails of itself ends the context's body too."""
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(Remover(equipment, queue).run(), name="tenants.remove"),
            group.create_task(watch_limits(equipment.database), name="tenants.limits"),
        ]
        if settings.worker.probe_seconds > 0:
            prober = Prober(equipment.database, equipment.region, settings.worker.probe_seconds)
            prober.also(lambda: messaging_store.holes(equipment.database, equipment.region))
            tasks.append(group.create_task(prober.run(), name="tenants.probe"))
        if settings.worker.tenant:
            tasks.append(group.create_task(_seen(equipment, settings.worker.tenant), name="tenants.worker"))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _seen(equipment: Equipment, tenant: str) -> None:
    while True:
        try:
            await tenant_store.worker_seen(equipment.database, tenant_id(tenant), equipment.worker)
        except Unavailable as error:
            log.warning("worker.not_seen", error=error.detail)
        await asyncio.sleep(SEEN_SECONDS)
