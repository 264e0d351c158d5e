"""All SQL about checking revisions of agents, and about what an agent's status follows from."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from hansa.apply.model import KnownServer
from hansa.apply.rollout.model import Facts
from hansa.db.pool import Connection
from hansa_crds import Agent, ModelProvider, TenantAllowed

FACTS = """SELECT json_build_object('name', o.name, 'generation', o.generation, 'updated_at', o.updated_at, 'manifest', o.manifest,
  'source', json_build_object('manager', o.manager, 'origin', o.origin, 'commit', o.commit, 'file', o.source -> 'file',
    'line', o.source -> 'line', 'column', o.source -> 'column'),
  'desired', n.revision, 'desired_at', n.created_at, 'serving', coalesce(a.revision, 0), 'rollout', l.body) AS body
FROM hansa.objects o LEFT JOIN hansa.agents a ON a.tenant_id = o.tenant_id AND a.name = o.name
CROSS JOIN LATERAL (SELECT r.revision, r.created_at FROM hansa.agent_revisions r
  WHERE r.tenant_id = o.tenant_id AND r.agent = o.name ORDER BY r.revision DESC LIMIT 1) n
LEFT JOIN LATERAL (SELECT json_build_object('state', l.state, 'reason', l.reason, 'message', l.message, 'changed_at', l.changed_at,
    'smoke_run', l.smoke_run, 'run_state', r.state, 'suspended_by', r.suspended_by, 'gate', r.gate) AS body
  FROM hansa.rollouts l LEFT JOIN hansa.runs r ON r.tenant_id = l.tenant_id AND r.id = l.smoke_run
  WHERE l.tenant_id = o.tenant_id AND l.agent = o.name AND l.revision = n.revision LIMIT 1) l ON true
WHERE o.tenant_id = (SELECT hansa.tenant()) AND o.kind = 'Agent' AND o.name = ANY ($1)"""

AROUND = """SELECT json_build_object(
  'providers', coalesce((SELECT json_agg(o.manifest ORDER BY o.name) FROM hansa.objects o
    WHERE o.tenant_id = (SELECT hansa.tenant()) AND o.kind = 'ModelProvider'), '[]'),
  'servers', coalesce((SELECT json_agg(json_build_object('manifest', o.manifest, 'status', o.status)) FROM hansa.objects o
    WHERE o.tenant_id = (SELECT hansa.tenant()) AND o.kind = 'ToolServer' AND o.name = ANY ($1)), '[]'),
  'agents', coalesce((SELECT json_agg(o.name) FROM hansa.objects o
    WHERE o.tenant_id = (SELECT hansa.tenant()) AND o.kind = 'Agent' AND o.name = ANY ($2)), '[]'),
  'allowed', (SELECT o.manifest -> 'spec' -> 'allowed' FROM hansa.objects o
    WHERE o.tenant_id = (SELECT hansa.tenant()) AND o.kind = 'Tenant' LIMIT 1),
  'changed_at', (SELECT max(o.updated_at) FROM hansa.objects o
    WHERE o.tenant_id = (SELECT hansa.tenant()) AND o.kind IN ('ModelProvider', 'ToolServer', 'Tenant')))"""


class Around(msgspec.Struct, frozen=True):
    """What agents refer to: all providers, the servers and agents that they name, and what their tenant may use. `changed_at`: when any
    provider, server or the Tenant was last changed."""

    providers: list[ModelProvider]
    servers: list[KnownServer]
    agents: list[str]
    allowed: TenantAllowed | None = None
    changed_at: datetime | None = None


async def facts(connection: Connection, names: Sequence[str]) -> list[Facts]:
    """What rows say of agents, those that are there."""
    rows = await connection.fetch(FACTS, names)
    return [msgspec.json.decode(row["body"], type=Facts) for row in rows]


async def around(connection: Connection, servers: Sequence[str], agents: Sequence[str]) -> Around:
    """What agents refer to, of the servers and agents named."""
    return msgspec.json.decode(await connection.fetchval(AROUND, servers, agents), type=Around)


async def begin(connection: Connection, agent: Agent, revision: int, *, digest: bytes, seconds: int, run: UUID) -> str:
    """A revision that asks to be checked was applied: `served`, `checking` (by `run`) or `refused`, see the SQL function."""
    spec = agent.spec
    return await connection.fetchval(
        "SELECT hansa.rollout_begin((SELECT hansa.tenant()), $1, $2, $3, $4, $5, $6, $7, $8, $9)",
        agent.metadata.name,
        revision,
        digest,
        seconds,
        spec.suspend,
        spec.concurrency,
        spec.placement.pool,
        spec.limits.concurrent_runs or None,
        run,
    )


async def again(connection: Connection, agent: str, run: UUID) -> str | None:
    """Check an agent's newest revision once more: `begun`, or the state of it, or None where nothing is to be checked."""
    return await connection.fetchval("SELECT hansa.rollout_again((SELECT hansa.tenant()), $1, $2)", agent, run)


async def manifest(connection: Connection, agent: str, revision: int) -> dict[str, Any] | None:
    """A revision of an agent."""
    text = await connection.fetchval(
        "SELECT manifest FROM hansa.agent_revisions WHERE tenant_id = (SELECT hansa.tenant()) AND agent = $1 AND revision = $2",
        agent,
        revision,
    )
    return None if text is None else msgspec.json.decode(text)


async def start(connection: Connection, place: tuple[str, int], *, run: UUID, session: UUID, input: str, by: str) -> bool:
    """Start the run that checks a revision of an agent; `input` and `by` are JSON texts. False: that is not wanted any more."""
    sql = "SELECT hansa.rollout_start((SELECT hansa.tenant()), $1, $2, $3, $4, $5, $6)"
    return await connection.fetchval(sql, *place, run, session, input, by)
