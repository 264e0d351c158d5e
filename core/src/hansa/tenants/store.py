"""All SQL about tenants and regions."""

from uuid import UUID

import asyncpg
import msgspec

from hansa.db.pool import Connection, Database, enter_tenant
from hansa_crds import TenantSpec

VIEW = """json_build_object('name', name, 'id', tenant_id, 'display_name', display_name, 'suspended', suspended, 'weight', weight,
  'concurrent_runs', concurrent_runs, 'requests_per_second', requests_per_second, 'created_at', created_at)"""
"""A tenant as the platform's people see it."""


async def lock_defaults(connection: Connection) -> None:
    """Let only one process at a time make what a first start makes, key file included; until the end of the transaction."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('hansa.defaults', 0))")


async def ensure_tenant(connection: Connection, tenant_id: UUID, name: str) -> UUID:
    """Make the tenant unless one of this name is there; its id. The connection acts in it from here on."""
    await enter_tenant(connection, tenant_id)
    await connection.execute("INSERT INTO hansa.tenants (tenant_id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING", tenant_id, name)
    return tenant_id


async def ensure_region(connection: Connection, name: str) -> None:
    """Make the region unless it is there."""
    await connection.execute("INSERT INTO hansa.regions (name) VALUES ($1) ON CONFLICT DO NOTHING", name)


async def update_tenant(connection: Connection, spec: TenantSpec) -> None:
    """Change the tenant of the connection to what its object says."""
    await connection.execute(
        "UPDATE hansa.tenants SET display_name = $1, suspended = $2, weight = $3, concurrent_runs = $4, requests_per_second = $5, "
        "role_bindings = $6 "
        "WHERE tenant_id = (SELECT hansa.tenant())",
        spec.display_name,
        spec.suspend,
        spec.weight,
        spec.quotas.concurrent_runs or None,
        spec.quotas.requests_per_second or None,
        msgspec.json.encode(spec.identity.role_bindings).decode(),
    )


async def take_requests(database: Database, tenant_id: UUID, wanted: int) -> asyncpg.Record:
    """Ask for so many requests of a tenant: record (admitted, bound, pause in seconds)."""
    return (await database.call_rows("SELECT admitted, bound, pause FROM hansa.requests_take($1, $2)", tenant_id, wanted))[0]


async def lock_tenant(connection: Connection) -> bool:
    """Lock the tenant of the connection for its transaction; false: it is not there."""
    return bool(await connection.fetchval("SELECT true FROM hansa.tenants WHERE tenant_id = (SELECT hansa.tenant()) FOR NO KEY UPDATE"))


async def find_tenant(database: Database, name: str) -> UUID | None:
    """The id of any tenant by its name."""
    rows = await database.system("SELECT tenant_id FROM hansa.tenants WHERE name = $1", name)
    return rows[0]["tenant_id"] if rows else None


async def read_tenant(database: Database, name: str) -> str | None:
    """Any tenant as JSON text."""
    rows = await database.system(f"SELECT {VIEW} AS body FROM hansa.tenants WHERE name = $1", name)
    return rows[0]["body"] if rows else None


async def page_tenants(database: Database, after: str, limit: int) -> list[asyncpg.Record]:
    """All tenants by name: records (name, body as JSON text)."""
    return await database.system(f"SELECT name, {VIEW} AS body FROM hansa.tenants WHERE name > $1 ORDER BY name LIMIT $2", after, limit)


async def objects_changed(connection: Connection) -> None:
    """Count a change of the tenant's objects: what processes keep of them is out of date."""
    await connection.execute("UPDATE hansa.tenants SET objects_version = objects_version + 1 WHERE tenant_id = (SELECT hansa.tenant())")


async def update_region(connection: Connection, name: str, *, display_name: str, cordoned: bool) -> bool:
    """Change a region; false: there is none of this name."""
    done = await connection.execute(
        "UPDATE hansa.regions SET display_name = $2, cordoned = $3 WHERE name = $1", name, display_name, cordoned
    )
    return done != "UPDATE 0"
