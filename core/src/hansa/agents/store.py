"""All SQL about agents and their revisions."""

from collections.abc import Collection, Sequence
from uuid import UUID

import asyncpg

from hansa.auth.model import Principal
from hansa.db.pool import Connection, Database

PAGE = """SELECT o.name, hansa.agent_json(o, a.revision) AS body
FROM hansa.objects o JOIN hansa.agents a ON a.tenant_id = o.tenant_id AND a.name = o.name
WHERE o.tenant_id = (SELECT hansa.tenant()) AND o.kind = 'Agent' AND o.name > $1 AND ($3::text[] IS NULL OR a.namespace = ANY ($3))
ORDER BY o.name LIMIT $2"""


WORLD = """SELECT hansa.run_world((SELECT hansa.tenant()), $1, $2) AS world,
  (SELECT o.manifest -> 'spec' -> 'allowed' FROM hansa.objects o
    WHERE o.tenant_id = (SELECT hansa.tenant()) AND o.kind = 'Tenant' LIMIT 1) AS allowed,
  (SELECT t.role_bindings FROM hansa.tenants t WHERE t.tenant_id = (SELECT hansa.tenant())) AS bindings,
  (SELECT coalesce((SELECT l.owner FROM hansa.rollouts l
      WHERE l.tenant_id = a.tenant_id AND l.agent = a.name AND l.revision = $2), a.owner)
    FROM hansa.agents a WHERE a.tenant_id = (SELECT hansa.tenant()) AND a.name = $1) AS owner"""


REVISIONS = """SELECT r.revision, json_build_object('revision', r.revision, 'digest', encode(r.digest, 'hex'), 'created_at', r.created_at,
  'state', CASE r.revision WHEN (SELECT a.revision FROM hansa.agents a WHERE a.tenant_id = r.tenant_id AND a.name = r.agent) THEN 'serving'
    ELSE coalesce(l.state, 'served') END, 'reason', coalesce(l.reason, ''), 'message', coalesce(l.message, ''), 'smoke_run', l.smoke_run,
  'manifest', r.manifest) AS body
FROM hansa.agent_revisions r LEFT JOIN hansa.rollouts l ON l.tenant_id = r.tenant_id AND l.agent = r.agent AND l.revision = r.revision
WHERE r.tenant_id = (SELECT hansa.tenant()) AND r.agent = $1 AND r.revision < $2
  AND ($4::text[] IS NULL OR coalesce(r.manifest -> 'metadata' ->> 'namespace', $5) = ANY ($4)) ORDER BY r.revision DESC LIMIT $3"""


async def world(connection: Connection, agent: str, revision: int) -> asyncpg.Record:
    """What objects say of an agent's revision: record (world, allowed, bindings, owner), JSON texts."""
    (row,) = await connection.fetch(WORLD, agent, revision)
    return row


async def standing(connection: Connection, names: Sequence[str], places: Collection[str]) -> set[str]:
    """Those of the agents that stand in these namespaces."""
    rows = await connection.fetch(
        "SELECT name FROM hansa.agents WHERE tenant_id = (SELECT hansa.tenant()) AND name = ANY ($1) AND namespace = ANY ($2)",
        names,
        places,
    )
    return {row["name"] for row in rows}


async def find(database: Database, tenant_id: UUID, name: str) -> asyncpg.Record | None:
    """An agent of a tenant, in one round trip: record (body, told), JSON texts; `told` is what its status follows from."""
    return await database.of(tenant_id).call_row("SELECT body, told FROM hansa.agent_read($1, $2)", tenant_id, name)


async def page(connection: Connection, after: str, limit: int, *, within: Collection[str] | None) -> list[asyncpg.Record]:
    """Agents by name, `within`: in these namespaces only: records (name, body)."""
    return await connection.fetch(PAGE, after, limit, within)


async def revisions(
    connection: Connection, principal: Principal, name: str, *, before: int, limit: int, within: Collection[str] | None
) -> list[asyncpg.Record]:
    """Revisions of an agent, newest first: records (revision, body). `within`: those that it had while it stood there."""
    return await connection.fetch(REVISIONS, name, before, limit, within, principal.tenant)
