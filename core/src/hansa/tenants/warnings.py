"""Tells of limits that are nearly used up, or wholly: once each time that one gets there, in the tenant's audit trail and in a worker's
log. The condition `QuotaReady` says it for as long as it is so.
"""

import asyncio
from uuid import UUID

import structlog

from hansa.audit.model import Action, Actor, AuditEvent
from hansa.audit.service import record
from hansa.db.pool import Database
from hansa.errors import Unavailable
from hansa.tenants import store
from hansa.tenants.budgets import MILLION

log = structlog.stdlib.get_logger("hansa.tenants")
SECONDS = 10.0
"""Between looks; any number of processes may look."""
TENANTS = 200
"""Told of in one look, at most."""
STATES = ("ok", "warning", "reached")
PLATFORM = Actor(name="platform", kind="platform")


async def watch_limits(database: Database) -> None:
    """Look again and again, until cancelled."""
    while True:
        try:
            await tell(database)
        except Unavailable as error:
            log.warning("limits.wait", error=error.detail)
        # A defect of ours here must not end the worker's runs: it is logged, and what is to be told is still to be told.
        except Exception:
            log.exception("limits.broke")
        await asyncio.sleep(SECONDS)


async def tell(database: Database) -> None:
    """Tell of what has got there since the last look."""
    for tenant_id in await store.untold_limits(database, TENANTS):
        if database.of(tenant_id) is not database:
            continue  # it is told of where its use is counted
        for told in await _tell(database, tenant_id):
            log.warning("limit.crossed", tenant_id=str(tenant_id), **told)


async def _tell(database: Database, tenant_id: UUID) -> list[dict[str, object]]:
    async with database.tenant(tenant_id) as connection:
        told: list[dict[str, object]] = []
        for risen in await store.tell_limits(connection, tenant_id):
            scale = MILLION if risen["name"] == "budget" else 1
            used, bound = risen["used"] / scale, risen["bound"] / scale
            told.append({"limit": risen["name"], "state": STATES[risen["level"]], "used": used, "bound": bound})
        events = [AuditEvent(action=Action.LIMIT_CROSSED, actor=PLATFORM, target=f"Limit/{each['limit']}", after=each) for each in told]
        await record(connection, *events)
    return told
