"""Makes whole what was cut off between the two databases of a tenant that has one to itself. The platform's decides what its Tenant object
says and whether it is closed; its own follows, and is brought what its audit trail is owed.

Every change does so when it is committed, and every process again and again (`hansa.tenants.watching`), for one may be killed in between.
"""

from collections.abc import Iterable
from uuid import UUID

import msgspec
import structlog

from hansa.audit.owing import deliver
from hansa.auth import store as key_store
from hansa.db.joining import joining
from hansa.db.pool import Connection, Database, enter_tenant
from hansa.errors import Unavailable
from hansa.ids import tenant_id
from hansa.tenants import store
from hansa_crds import Tenant

log = structlog.stdlib.get_logger("hansa.database")


class _Kept(msgspec.Struct):
    """An object's row, as far as it matters here."""

    manifest: Tenant
    generation: int


async def settled(database: Database, names: Iterable[str]) -> None:
    """A change of these tenants is committed: have their own databases follow at once. Where one is away, whoever sees it next does."""
    for name in sorted(set(names)):
        try:
            await settle(database, tenant_id(name))
        except Unavailable as error:
            log.warning("database.follows_later", tenant=name, error=error.detail)


async def settle(database: Database, tenant: UUID) -> None:
    """Have a tenant's own database follow the platform's; nothing for one that shares. Safe to repeat, and to do twice at once. Raises
    `Unavailable`."""
    own = database.of(tenant)
    if own is database:
        return
    async with database.here(tenant) as connection:
        wanted = await store.standing(connection)
    if wanted is not None:
        async with own.here(tenant) as connection:
            if wanted.state == "deleting":
                await key_store.revoke_all(connection)
            found = await store.standing(connection)
        if found not in (None, wanted):
            await _mend(database, tenant)
    await deliver(database, tenant)


async def _mend(database: Database, tenant: UUID) -> None:
    async with database.here(tenant) as connection, joining(database, connection, database) as joined:
        # Whoever changes the tenant at this moment holds it: it is not half done, but under way.
        if await store.lock_tenant(joined) is None:
            return
        wanted = await store.standing(joined)
        await enter_tenant(joined, tenant)
        await store.lock_tenant(joined)
        found = await store.standing(joined)
        if wanted is not None and found not in (None, wanted):
            await _follow(joined, wanted)
            log.warning("database.mended", tenant=wanted.name, hint="A change was cut off; its own database has followed now.")


async def _follow(connection: Connection, wanted: store.Standing) -> None:
    """Have the database that the connection is in be as the platform's. It has the tenant, for it commits first: where it does not, it is
    a new one in place of one that was lost, and that people fill who know."""
    if wanted.state == "deleting":  # what it has is on its way out, and is not put back
        await store.suspend(connection, suspended=True)
        await store.set_state(connection, "deleting")
        return
    await store.set_namespaces(connection, wanted.namespaces)
    if wanted.object is not None:
        kept = msgspec.json.decode(wanted.object, type=_Kept)
        spec = kept.manifest.spec
        await store.update_tenant(connection, msgspec.structs.replace(spec, suspend=wanted.suspended))
        await store.set_budget(connection, spec.quotas)
        await store.put_tenant_object(connection, wanted.object)
        await store.set_generation(connection, kept.generation)
    else:
        await store.suspend(connection, suspended=wanted.suspended)
    await store.set_state(connection, wanted.state)
    await store.objects_changed(connection)
