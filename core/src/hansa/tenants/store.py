"""All SQL about tenants and regions."""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

import asyncpg
import msgspec

from hansa.db.pool import Connection, Database, enter_tenant
from hansa_crds import TenantQuotas, TenantSpec

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
        "UPDATE hansa.tenants SET display_name = $1, weight = $2, concurrent_runs = $3, requests_per_second = $4, role_bindings = $5 "
        "WHERE tenant_id = (SELECT hansa.tenant())",
        spec.display_name,
        spec.weight,
        spec.quotas.concurrent_runs or None,
        spec.quotas.requests_per_second or None,
        msgspec.json.encode(spec.identity.role_bindings).decode(),
    )
    await connection.execute("SELECT hansa.tenant_changed((SELECT hansa.tenant()), $1)", spec.suspend)


async def set_budget(connection: Connection, quotas: TenantQuotas) -> None:
    """Set what the tenant of the connection may spend, how many agents it may have and how much it may keep."""
    budget = quotas.budget
    await connection.execute(
        "UPDATE hansa.tenants SET most_agents = $1, storage_bytes = $2 WHERE tenant_id = (SELECT hansa.tenant()) "
        "AND (most_agents, storage_bytes) IS DISTINCT FROM ($1::integer, $2::bigint)",
        quotas.agents or None,
        quotas.storage_bytes or None,
    )
    await connection.execute(
        "SELECT hansa.budget_set((SELECT hansa.tenant()), $1, $2, $3, $4, $5, $6, $7)",
        None if budget is None else round(budget.amount * 1_000_000),
        "" if budget is None else budget.currency,
        "day" if budget is None else budget.period,
        "reject" if budget is None else budget.on_limit,
        budget is None or budget.lost_calls == "charge",
        80 if budget is None else budget.warn_at,
        quotas.tokens_per_day or None,
    )


async def agents_left(connection: Connection) -> tuple[int, int] | None:
    """How many agents the tenant of the connection has, and the most it may have; None: no bound. No other is added meanwhile."""
    most = await connection.fetchval("SELECT most_agents FROM hansa.tenants WHERE tenant_id = (SELECT hansa.tenant())")
    if most is None:
        return None
    await lock_tenant(connection)
    count = await connection.fetchval("SELECT count(*) FROM hansa.agents WHERE tenant_id = (SELECT hansa.tenant())")
    return count, most


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


LIMITS = """
SELECT b.*, t.concurrent_runs, t.most_agents, t.storage_bytes, b.begun >= n.begun AS same_period, b.day >= n.today AS same_day,
  greatest(b.begun, n.begun) AS since, hansa.period_end(greatest(b.begun, n.begun), b.period) AS period_end,
  greatest(b.day, n.today) AS day_since, hansa.period_end(greatest(b.day, n.today), 'day') AS day_end,
  (SELECT count(*) FROM hansa.agents a WHERE t.most_agents IS NOT NULL AND a.tenant_id = t.tenant_id) AS agents,
  (SELECT coalesce(sum(s.bytes), 0)::bigint FROM hansa.storage s WHERE s.tenant_id = t.tenant_id) AS kept_bytes,
  (SELECT count(*) FROM hansa.runs r WHERE t.concurrent_runs IS NOT NULL AND r.tenant_id = t.tenant_id AND r.state = 'running') AS running,
  (SELECT count(*) FROM hansa.runs r WHERE t.metered AND r.tenant_id = t.tenant_id AND r.state = 'suspended'
    AND r.suspended_by = 'budget') AS held
FROM hansa.tenants t LEFT JOIN hansa.budgets b ON b.tenant_id = t.tenant_id
CROSS JOIN LATERAL (SELECT d.today, date_trunc(coalesce(b.period, 'day'), d.today::timestamp)::date AS begun
  FROM (SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date AS today) d) n
WHERE t.tenant_id = (SELECT hansa.tenant())
"""
USAGE = """
SELECT day, agent, model, json_build_object('day', nullif(day, ''), 'agent', nullif(agent, ''), 'model', nullif(model, ''),
  'calls', sum(calls), 'input_tokens', sum(input_tokens), 'output_tokens', sum(output_tokens), 'cost', round(sum(cost) / 1000000, 6),
  'lost_calls', sum(lost_calls), 'lost_tokens', sum(lost_tokens), 'lost_cost', round(sum(lost_cost) / 1000000, 6)) AS body
FROM (SELECT CASE WHEN 'day' = ANY ($3::text[]) THEN u.day::text ELSE '' END AS day,
    CASE WHEN 'agent' = ANY ($3) THEN u.agent ELSE '' END AS agent, CASE WHEN 'model' = ANY ($3) THEN u.model ELSE '' END AS model,
    u.calls, u.input_tokens, u.output_tokens, u.cost, u.lost_calls, u.lost_tokens, u.lost_cost
  FROM hansa.usage u WHERE u.tenant_id = (SELECT hansa.tenant()) AND u.day BETWEEN $1 AND $2) g
GROUP BY day, agent, model HAVING (day, agent, model) > ($4, $5, $6) ORDER BY day, agent, model LIMIT $7
"""


async def find_limits(connection: Connection) -> asyncpg.Record | None:
    """All limits of the tenant of the connection, and what it uses of them now."""
    return await connection.fetchrow(LIMITS)


async def page_usage(
    connection: Connection, since: date, until: date, *, by: Sequence[str], after: Sequence[str], limit: int
) -> list[asyncpg.Record]:
    """What was used from day to day, both included: records (day, agent, model, body as JSON text), '' where not asked for."""
    return await connection.fetch(USAGE, since, until, list(by), *after, limit)
