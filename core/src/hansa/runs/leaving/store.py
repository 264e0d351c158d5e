"""All SQL about what a tenant takes along when it leaves, and about removing the rest."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from hansa.db.pool import Connection, Database


class Leaving(msgspec.Struct, frozen=True):
    """A deletion that is not done. `settled`: it was asked for so long ago that no request that came before it is still under way;
    `database`: where the tenant's rows are."""

    id: UUID
    tenant: UUID
    name: str
    policy: str
    step: str
    settled: bool
    database: str


OPEN = """SELECT d.id, d.tenant, d.name, d.policy, d.step, d.requested_at < clock_timestamp() - interval '3 seconds' AS settled,
  coalesce(t.database, 'Shared') AS database
FROM hansa.deletions d LEFT JOIN hansa.tenants t ON t.tenant_id = d.tenant WHERE finished_at IS NULL ORDER BY requested_at LIMIT 20"""
LATE = """SELECT DISTINCT d.tenant FROM hansa.deletions d WHERE d.finished_at > clock_timestamp() - interval '1 hour'
  AND NOT EXISTS (SELECT FROM hansa.tenants t WHERE t.tenant_id = d.tenant)"""


async def open_deletions(database: Database) -> list[Leaving]:
    """Deletions that are not done, oldest first."""
    return [Leaving(*row) for row in await database.system(OPEN)]


async def late_tenants(database: Database) -> list[UUID]:
    """Tenants that have gone in the last hour, of which somebody who was frozen meanwhile might write still."""
    return [row["tenant"] for row in await database.system(LATE)]


async def hold(database: Database, deletion_id: UUID) -> bool:
    """Take the right to go on with a deletion, for some seconds; false: another worker has it. Two at once would do no harm, only work."""
    rows = await database.system(
        "UPDATE hansa.deletions SET held_until = clock_timestamp() + interval '15 seconds' "
        "WHERE id = $1 AND held_until < clock_timestamp() RETURNING id",
        deletion_id,
    )
    return bool(rows)


async def condemn(database: Database, leaving: Leaving) -> None:
    """Have a tenant's own database know that the tenant is being deleted, in case it was made anew since."""
    sql = "INSERT INTO hansa.deletions (id, tenant, name, policy, requested_by) VALUES ($1, $2, $3, $4, 'worker') ON CONFLICT DO NOTHING"
    own = database.of(leaving.tenant)
    if own is not database:
        await own.call(sql, leaving.id, leaving.tenant, leaving.name, leaving.policy)


async def let_go(database: Database, deletion_id: UUID) -> None:
    """Leave a deletion to whoever comes next."""
    await database.system("UPDATE hansa.deletions SET held_until = '-infinity' WHERE id = $1", deletion_id)


async def set_step(database: Database, deletion_id: UUID, *, before: str, step: str) -> None:
    """The deletion has come from a step to the next, unless another worker has seen to that."""
    await database.system("UPDATE hansa.deletions SET step = $3 WHERE id = $1 AND step = $2", deletion_id, before, step)


async def exported(database: Database, deletion_id: UUID, export: UUID, parts: int) -> bool:
    """The export of a deletion is whole; false: another one was before."""
    rows = await database.system(
        "UPDATE hansa.deletions SET step = 'purge', export = $2, parts = $3 WHERE id = $1 AND step = 'export' RETURNING id",
        *(deletion_id, export, parts),
    )
    return bool(rows)


async def keep_residue(database: Database, deletion_id: UUID, residue: Mapping[str, int]) -> None:
    """Keep what the last scan has found."""
    text = msgspec.json.encode(residue, order="sorted").decode()
    await database.system("UPDATE hansa.deletions SET residue = $2 WHERE id = $1", deletion_id, text)


async def finish(connection: Connection, leaving: Leaving) -> bool:
    """Remove the tenant's own row and say that it is done, in the caller's transaction; false: something of it is left."""
    if not await connection.fetchval("SELECT hansa.tenant_remove($1)", leaving.tenant):
        return False
    await connection.execute("UPDATE hansa.deletions SET step = 'done', finished_at = clock_timestamp() WHERE id = $1", leaving.id)
    return True


async def working(database: Database, tenant_id: UUID) -> int:
    """How many runs of a tenant a worker may be driving."""
    rows = await database.of(tenant_id).system(
        "SELECT count(*) AS n FROM hansa.runs WHERE tenant_id = $1 AND state = 'running' AND lease_until > clock_timestamp()", tenant_id
    )
    return rows[0]["n"]


async def purge(database: Database, tenant_id: UUID, limit: int) -> int:
    """Remove some rows from this database of a tenant that is being deleted, in a transaction of its own; how many."""
    return (await database.system("SELECT hansa.tenant_purge($1, $2) AS n", tenant_id, limit))[0]["n"]


async def residue(database: Database, tenant_id: UUID) -> dict[str, int]:
    """Rows in this database of a tenant that is being deleted, by table: those that have any."""
    rows = await database.system("SELECT place, much FROM hansa.tenant_residue($1)", tenant_id)
    return {row["place"]: row["much"] for row in rows}


async def deleted_among(database: Database, tenants: Sequence[UUID]) -> list[UUID]:
    """Those of the tenants that were deleted and are not there again."""
    if not tenants:
        return []
    rows = await database.system(
        "SELECT DISTINCT d.tenant FROM hansa.deletions d WHERE d.tenant = ANY ($1) AND d.finished_at IS NOT NULL "
        "AND NOT EXISTS (SELECT FROM hansa.tenants t WHERE t.tenant_id = d.tenant)",
        tenants,
    )
    return [row["tenant"] for row in rows]


async def manifests(connection: Connection) -> list[str]:
    """All manifests of the connection's tenant, its own first, as JSON texts."""
    rows = await connection.fetch(
        "SELECT manifest FROM hansa.objects WHERE tenant_id = (SELECT hansa.tenant()) ORDER BY kind <> 'Tenant', kind, name"
    )
    return [row["manifest"] for row in rows]


async def session_ids(connection: Connection, after: UUID, limit: int) -> list[UUID]:
    """Sessions of the connection's tenant in the order of their ids."""
    rows = await connection.fetch(
        "SELECT id FROM hansa.sessions WHERE tenant_id = (SELECT hansa.tenant()) AND id > $1 ORDER BY id LIMIT $2", after, limit
    )
    return [row["id"] for row in rows]
