"""Reading audit trails straight out of the database, as a superuser."""

from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from hansa.tenants.service import tenant_id
from stack import Stack


async def trail(stack: Stack, tenant: str = "default", *, after: int = 0) -> list[dict[str, Any]]:
    """Events of a tenant's trail after a number, oldest first, each with its `seq`."""
    return await rows(stack.admin_url, tenant_id(tenant), after=after)


async def rows(url: str, tenant: UUID, *, after: int = 0) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(url)
    try:
        found = await connection.fetch(
            "SELECT seq, event FROM hansa.audit_events WHERE tenant_id = $1 AND seq > $2 ORDER BY seq", tenant, after
        )
    finally:
        await connection.close()
    return [{"seq": row["seq"], **msgspec.json.decode(row["event"])} for row in found]


async def end(stack: Stack, tenant: str = "default") -> int:
    """The number of the last event."""
    found = await trail(stack, tenant)
    return found[-1]["seq"] if found else 0
