"""All SQL about agents and their revisions."""

import asyncpg

from hansa.db.pool import Connection

AGENT = """
SELECT o.name, json_build_object('name', o.name, 'revision', nullif(a.revision, 0), 'generation', o.generation, 'manager', o.manager,
  'origin', o.origin, 'commit', o.commit, 'source', o.source, 'applied_by', o.applied_by,
  'description', coalesce(o.manifest -> 'spec' ->> 'description', ''),
  'runtime', coalesce(o.manifest -> 'spec' -> 'runtime' ->> 'name', 'loop'),
  'model', coalesce(o.manifest -> 'spec' -> 'model' ->> 'alias', o.manifest -> 'spec' -> 'model' ->> 'ref'),
  'suspended', coalesce((o.manifest -> 'spec' ->> 'suspend')::boolean, false),
  'created_at', o.created_at, 'updated_at', o.updated_at, 'manifest', o.manifest) AS body
FROM hansa.objects o JOIN hansa.agents a ON a.tenant_id = o.tenant_id AND a.name = o.name
WHERE o.tenant_id = (SELECT hansa.tenant()) AND o.kind = 'Agent'
"""


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
WHERE r.tenant_id = (SELECT hansa.tenant()) AND r.agent = $1 AND r.revision < $2 ORDER BY r.revision DESC LIMIT $3"""


async def world(connection: Connection, agent: str, revision: int) -> asyncpg.Record:
    """What objects say of an agent's revision: record (world, allowed, bindings, owner), JSON texts."""
    (row,) = await connection.fetch(WORLD, agent, revision)
    return row


async def find(connection: Connection, name: str) -> asyncpg.Record | None:
    """An agent: record (name, body as JSON text)."""
    return await connection.fetchrow(f"{AGENT} AND o.name = $1", name)


async def page(connection: Connection, after: str, limit: int) -> list[asyncpg.Record]:
    """Agents by name: records (name, body)."""
    return await connection.fetch(f"{AGENT} AND o.name > $1 ORDER BY o.name LIMIT $2", after, limit)


async def revisions(connection: Connection, name: str, before: int, limit: int) -> list[asyncpg.Record]:
    """Revisions of an agent, newest first: records (revision, body)."""
    return await connection.fetch(
        REVISIONS,
        name,
        before,
        limit,
    )
