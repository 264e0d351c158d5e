"""The trail of a tenant that has a database to itself, where the platform's database decides: what its Tenant object says, whether it is
closed, whom its NATS account turns away.

The row is owed then: it stands in the platform's database with the change, in one transaction, and is brought into the tenant's trail
afterwards, once, however often that is cut off and begun again. Its time is that of when it was brought.
"""

from uuid import UUID

from hansa import ids
from hansa.audit import store
from hansa.audit.model import AuditEvent
from hansa.audit.service import canonical, record
from hansa.db.pool import Connection, Database, enter_platform, enter_tenant, has_own


async def decided(connection: Connection, tenant_id: UUID, *events: AuditEvent) -> None:
    """Write events of what the platform's database decides, in the transaction of the change; the connection is in that tenant, or in what
    the platform keeps of it, afterwards. `deliver` is to be called after the commit."""
    if has_own(connection, tenant_id):
        await enter_platform(connection, tenant_id)
        await store.owe(connection, [(ids.new_id(), canonical(event)) for event in events])
    else:
        await enter_tenant(connection, tenant_id)
        await record(connection, *events)


async def deliver(database: Database, tenant_id: UUID) -> int:
    """Bring what is owed to a tenant into its trail; how much that was. Safe to repeat, and to do twice at once. Raises `Unavailable`."""
    own = database.of(tenant_id)
    if own is database:
        return 0
    async with database.here(tenant_id) as connection:
        owed = await store.owed(connection)
    if owed:
        async with own.here(tenant_id) as connection:
            fresh = await store.take(connection, list(owed))
            if fresh:
                await store.append(connection, [event for key, event in owed.items() if key in fresh])
        async with database.here(tenant_id) as connection:
            await store.forgive(connection, list(owed))
    return len(owed)
