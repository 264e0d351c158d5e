"""All SQL about tenants, their deletion, and regions."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from uuid import UUID

import asyncpg
import msgspec

from hansa.db.pool import Connection, Database, enter_here
from hansa.tenants.conditions import Condition
from hansa_crds import TenantQuotas, TenantSpec

STANDING = """SELECT t.name, t.database, t.state, t.suspended,
  ARRAY(SELECT n.name FROM hansa.namespaces n WHERE n.tenant_id = t.tenant_id ORDER BY n.name) AS namespaces,
  (SELECT to_json(o)::text FROM hansa.objects o WHERE o.tenant_id = t.tenant_id AND o.kind = 'Tenant') AS object
FROM hansa.tenants t WHERE t.tenant_id = (SELECT hansa.tenant())"""
Probe = Callable[[], Awaitable[list[str]]]
"""Tries something that must not be possible; what was, in words."""
CROSSED = """SELECT coalesce(json_agg(json_build_object('name', l.name, 'level', l.level) ORDER BY l.name), '[]')
  FROM hansa.limit_levels l"""
FACTS = f"""SELECT t.name, t.tenant_id, t.display_name, t.suspended, t.weight, t.concurrent_runs, t.requests_per_second, t.created_at,
  t.state, t.generation, t.workers, t.database, t.deletion_policy, t.prevent_deletion, w.workers_seen, w.workers_since,
  m.told IS NOT NULL OR m.reason <> '' AS messaged, coalesce(m.told LIKE '%:' || m.version, false) AS messaging_told,
  coalesce(m.blocked, false) AS messaging_blocked, coalesce(m.reason, '') AS messaging_trouble,
  (SELECT coalesce(json_agg(json_build_object('type', c.type, 'status', c.status, 'reason', c.reason, 'message', c.message,
    'observedGeneration', c.observed_generation, 'lastTransitionTime', c.last_transition_time) ORDER BY c.type), '[]')
    FROM hansa.tenant_conditions c WHERE c.tenant_id = t.tenant_id) AS put,
  ({CROSSED} WHERE l.tenant_id = t.tenant_id) AS crossed,
  ARRAY(SELECT l.name FROM hansa.limits l WHERE l.tenant_id = t.tenant_id ORDER BY l.name) AS limits, t.most_agents
FROM hansa.tenants t LEFT JOIN hansa.messaging_accounts m ON m.tenant_id = t.tenant_id CROSS JOIN LATERAL (
  SELECT count(*) FILTER (WHERE seen_at > now() - interval '90 seconds') AS workers_seen,
    coalesce(min(since) FILTER (WHERE seen_at > now() - interval '90 seconds'), max(seen_at)) AS workers_since
  FROM hansa.tenant_workers w WHERE w.tenant_id = t.tenant_id) w"""
"""Tenants, and what their conditions follow from."""
REGION = """SELECT r.name, r.cordoned, r.changed_at, coalesce(isfinite(p.checked_at), false) AS probed,
  coalesce(p.verified, false) AS verified, coalesce(p.message, '') AS message, p.since,
  CASE WHEN isfinite(p.checked_at) THEN extract(epoch FROM now() - p.checked_at) ELSE 0 END::float8 AS age
FROM hansa.regions r LEFT JOIN hansa.isolation_probes p ON p.region = r.name WHERE r.name = $1"""


DELETION = """json_build_object('id', id, 'tenant', name, 'policy', policy, 'requested_by', requested_by, 'requested_at', requested_at,
  'step', step, 'exported', parts IS NOT NULL, 'residue', residue, 'finished_at', finished_at)"""
"""A deletion as the platform's people see it."""


class Standing(msgspec.Struct, frozen=True):
    """How a tenant stands in a database; `object`: the row of its own object, as JSON text. Of one that is being deleted, which loses the
    rest bit by bit, only that it is."""

    name: str
    database: str
    state: str
    suspended: bool
    namespaces: list[str]
    object: str | None


class KnownDeletion(msgspec.Struct, frozen=True):
    """A deletion: whose, where its export lies and of how many parts it consists (None: it has none), and how people see it, as JSON."""

    name: str
    export: UUID | None
    parts: int | None
    body: str


async def lock_defaults(connection: Connection) -> None:
    """Let only one process at a time make what a first start makes, key file included; until the end of the transaction."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('hansa.defaults', 0))")


async def ensure_tenant(connection: Connection, tenant_id: UUID, name: str, *, database: str = "Shared") -> UUID:
    """Make the tenant unless one of this name is there; its id. Its name leads to it, unless another one has claimed that as a namespace.
    The connection acts in it from here on."""
    await enter_here(connection, tenant_id)
    await connection.execute(
        "INSERT INTO hansa.tenants (tenant_id, name, database) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", tenant_id, name, database
    )
    await connection.execute("INSERT INTO hansa.namespaces (tenant_id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING", tenant_id, name)
    return tenant_id


async def ensure_region(connection: Connection, name: str) -> None:
    """Make the region unless it is there."""
    await connection.execute("INSERT INTO hansa.regions (name) VALUES ($1) ON CONFLICT DO NOTHING", name)


async def update_tenant(connection: Connection, spec: TenantSpec) -> None:
    """Change the tenant of the connection to what its object says."""
    await connection.execute(
        "UPDATE hansa.tenants SET display_name = $1, weight = $2, concurrent_runs = $3, requests_per_second = $4, role_bindings = $5, "
        "deletion_policy = $6, prevent_deletion = $7 WHERE tenant_id = (SELECT hansa.tenant())",
        spec.display_name,
        spec.weight,
        spec.quotas.concurrent_runs or None,
        spec.quotas.requests_per_second or None,
        msgspec.json.encode(spec.identity.role_bindings).decode(),
        spec.deletion_policy,
        spec.prevent_deletion,
    )
    await connection.execute("SELECT hansa.tenant_changed((SELECT hansa.tenant()), $1)", spec.suspend)
    await connection.execute("SELECT hansa.tenant_workers_changed((SELECT hansa.tenant()), $1)", spec.isolation.workers)


async def tenant_object(connection: Connection) -> str:
    """The row of the connection's tenant's own object, as JSON text."""
    return await connection.fetchval(
        "SELECT to_json(o) FROM hansa.objects o WHERE o.tenant_id = (SELECT hansa.tenant()) AND o.kind = 'Tenant'"
    )


async def put_tenant_object(connection: Connection, row: str) -> None:
    """Make that the row of the connection's tenant's own object."""
    await connection.execute("DELETE FROM hansa.objects WHERE tenant_id = (SELECT hansa.tenant()) AND kind = 'Tenant'")
    await connection.execute("INSERT INTO hansa.objects SELECT * FROM json_populate_record(NULL::hansa.objects, $1)", row)


async def set_generation(connection: Connection, generation: int) -> None:
    """Keep which generation of its object the tenant of the connection is as."""
    await connection.execute("UPDATE hansa.tenants SET generation = $1 WHERE tenant_id = (SELECT hansa.tenant())", generation)


async def standing(connection: Connection) -> Standing | None:
    """How the tenant of the connection stands in this database; None: it is not there."""
    row = await connection.fetchrow(STANDING)
    if row is None:
        return None
    found = Standing(*row)
    return msgspec.structs.replace(found, namespaces=[], object=None) if found.state == "deleting" else found


async def set_namespaces(connection: Connection, names: Sequence[str]) -> None:
    """Make these names lead to the tenant of the connection, and no others."""
    await connection.execute("DELETE FROM hansa.namespaces WHERE tenant_id = (SELECT hansa.tenant()) AND name <> ALL ($1)", names)
    await connection.execute(
        "INSERT INTO hansa.namespaces (tenant_id, name) SELECT hansa.tenant(), name FROM unnest($1::text[]) name ON CONFLICT DO NOTHING",
        names,
    )


async def put_conditions(connection: Connection, conditions: Sequence[Condition]) -> None:
    """Keep what was found out of the tenant of the connection; a condition's time is when its status last changed."""
    await connection.executemany(
        "INSERT INTO hansa.tenant_conditions AS c (tenant_id, type, status, reason, message, observed_generation, last_transition_time) "
        "VALUES (hansa.tenant(), $1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, type) DO UPDATE SET status = excluded.status, "
        "reason = excluded.reason, message = excluded.message, observed_generation = excluded.observed_generation, "
        "last_transition_time = CASE WHEN c.status = excluded.status THEN c.last_transition_time ELSE excluded.last_transition_time END",
        [(each.type, each.status, each.reason, each.message, each.observed_generation, each.last_transition_time) for each in conditions],
    )


async def drop_condition(connection: Connection, type_: str) -> None:
    """What was found out no longer holds: it follows from the rows again, or there is none of this type."""
    await connection.execute("DELETE FROM hansa.tenant_conditions WHERE tenant_id = (SELECT hansa.tenant()) AND type = $1", type_)


async def set_budget(connection: Connection, quotas: TenantQuotas) -> None:
    """Set what the tenant of the connection may spend, how many agents it may have, and how much it may keep and send."""
    budget = quotas.budget
    await connection.execute(
        "UPDATE hansa.tenants SET most_agents = $1, storage_bytes = $2, messages_per_day = $3 WHERE tenant_id = (SELECT hansa.tenant()) "
        "AND (most_agents, storage_bytes, messages_per_day) IS DISTINCT FROM ($1::integer, $2::bigint, $3::bigint)",
        quotas.agents or None,
        quotas.storage_bytes or None,
        quotas.messages_per_day or None,
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
    await connection.execute(
        "UPDATE hansa.tenants SET metered = $1 WHERE tenant_id = (SELECT hansa.tenant()) AND metered <> $1",
        budget is not None or bool(quotas.tokens_per_day or quotas.messages_per_day),
    )


async def agents_left(connection: Connection) -> tuple[int, int] | None:
    """How many agents the tenant of the connection has, and the most it may have; None: no bound. No other is added meanwhile."""
    most = await connection.fetchval("SELECT most_agents FROM hansa.tenants WHERE tenant_id = (SELECT hansa.tenant())")
    if most is None:
        return None
    await lock_tenant(connection)
    count = await connection.fetchval("SELECT count(*) FROM hansa.agents WHERE tenant_id = (SELECT hansa.tenant())")
    return count, most


async def take_requests(database: Database, tenant_id: UUID, wanted: int, *, ahead: int) -> asyncpg.Record:
    """Ask for so many requests of a tenant, and so many ahead: record (admitted, bound, pause, ahead, lease); pause and
    lease in seconds."""
    sql = "SELECT admitted, bound, pause, ahead, lease FROM hansa.requests_take($1, $2, $3)"
    return (await database.of(tenant_id).call_rows(sql, tenant_id, wanted, ahead))[0]


async def untold_limits(database: Database, limit: int) -> list[UUID]:
    """Tenants of which a limit is used more, or less, than was told of it."""
    return [row["tenant_id"] for row in await database.system("SELECT tenant_id FROM hansa.limits_untold($1) AS tenant_id", limit)]


async def tell_limits(connection: Connection, tenant_id: UUID) -> list[asyncpg.Record]:
    """Keep how far the tenant's limits are used: records (name, used, bound, level) of those that are to be told of."""
    return await connection.fetch("SELECT name, used, bound, level FROM hansa.limits_tell($1)", tenant_id)


async def lock_tenant(connection: Connection) -> asyncpg.Record | None:
    """Lock the tenant of the connection for its transaction: record (name, state, deletion_policy, prevent_deletion, database); None: it
    is not there."""
    return await connection.fetchrow(
        "SELECT name, state, deletion_policy, prevent_deletion, database FROM hansa.tenants WHERE tenant_id = (SELECT hansa.tenant()) "
        "FOR NO KEY UPDATE"
    )


async def find_tenant(database: Database, name: str) -> asyncpg.Record | None:
    """Any tenant by its name: record (tenant_id, state, database)."""
    rows = await database.system("SELECT tenant_id, state, database FROM hansa.tenants WHERE name = $1", name)
    return rows[0] if rows else None


async def read_tenant(database: Database, name: str) -> asyncpg.Record | None:
    """Any tenant, with what its conditions follow from."""
    rows = await database.system(f"{FACTS} WHERE t.name = $1", name)
    return rows[0] if rows else None


async def page_tenants(database: Database, after: str, limit: int) -> list[asyncpg.Record]:
    """All tenants by name, with what their conditions follow from."""
    return await database.system(f"{FACTS} WHERE t.name > $1 ORDER BY t.name LIMIT $2", after, limit)


async def read_crossed(own: Database, tenant_id: UUID) -> str:
    """Limits of which a tenant has used much, as its own database tells, as JSON text."""
    (row,) = await own.system(f"SELECT ({CROSSED} WHERE l.tenant_id = $1) AS crossed", tenant_id)
    return row["crossed"]


async def read_region(database: Database, name: str) -> asyncpg.Record | None:
    """A region, and what the last probe in it has found."""
    rows = await database.system(REGION, name)
    return rows[0] if rows else None


async def set_state(connection: Connection, state: str) -> None:
    """Archive the tenant of the connection, begin to delete it, or bring it back; suspended unless it is active."""
    await connection.execute("UPDATE hansa.tenants SET state = $1 WHERE tenant_id = (SELECT hansa.tenant())", state)


async def suspend(connection: Connection, *, suspended: bool) -> None:
    """Suspend the tenant of the connection, or let it go on."""
    await connection.execute("SELECT hansa.tenant_changed((SELECT hansa.tenant()), $1)", suspended)


async def is_suspended_by_object(connection: Connection) -> bool:
    """Whether the object of the connection's tenant says that it is suspended."""
    return bool(
        await connection.fetchval(
            "SELECT (manifest -> 'spec' ->> 'suspend')::boolean FROM hansa.objects "
            "WHERE tenant_id = (SELECT hansa.tenant()) AND kind = 'Tenant'"
        )
    )


async def insert_deletion(connection: Connection, deletion_id: UUID, tenant_id: UUID, *, name: str, policy: str, by: str) -> None:
    """Keep that a tenant is to be deleted."""
    await connection.execute(
        "INSERT INTO hansa.deletions (id, tenant, name, policy, requested_by) VALUES ($1, $2, $3, $4, $5)",
        *(deletion_id, tenant_id, name, policy, by),
    )


async def page_deletions(database: Database, before: UUID | None, limit: int) -> list[asyncpg.Record]:
    """Deletions, newest first: records (id, body as JSON text)."""
    return await database.system(
        f"SELECT id, {DELETION} AS body FROM hansa.deletions WHERE ($1::uuid IS NULL OR id < $1) ORDER BY id DESC LIMIT $2", before, limit
    )


async def read_deletion(database: Database, deletion_id: UUID) -> KnownDeletion | None:
    """A deletion."""
    rows = await database.system(f"SELECT name, export, parts, {DELETION} AS body FROM hansa.deletions WHERE id = $1", deletion_id)
    return KnownDeletion(*rows[0]) if rows else None


async def take_probe(database: Database, region: str, seconds: float) -> bool:
    """Take the region's turn to probe, for a minute at most; false: another worker has it, or had it less than so many seconds ago."""
    await database.system("INSERT INTO hansa.isolation_probes (region, verified) VALUES ($1, false) ON CONFLICT DO NOTHING", region)
    taken = await database.system(
        "UPDATE hansa.isolation_probes SET held_until = clock_timestamp() + interval '1 minute' WHERE region = $1 "
        "AND held_until < clock_timestamp() AND checked_at <= clock_timestamp() - make_interval(secs => $2) RETURNING region",
        *(region, seconds),
    )
    return bool(taken)


async def keep_probe(database: Database, region: str, message: str) -> None:
    """Keep what a probe has found, nothing being good, and give the turn back."""
    await database.system(
        "UPDATE hansa.isolation_probes SET verified = $2, message = $3, held_until = '-infinity', checked_at = clock_timestamp(), "
        "since = CASE WHEN verified = $2 AND isfinite(checked_at) THEN since ELSE clock_timestamp() END WHERE region = $1",
        *(region, not message, message),
    )


async def worker_seen(database: Database, tenant_id: UUID, worker: str) -> None:
    """Keep that a worker of a tenant's own is there, with what the platform keeps of the tenant."""
    await database.call("SELECT hansa.tenant_worker_seen($1, $2)", tenant_id, worker)


async def objects_changed(connection: Connection) -> None:
    """Count a change of the tenant's objects: what processes keep of them is out of date."""
    await connection.execute("UPDATE hansa.tenants SET objects_version = objects_version + 1 WHERE tenant_id = (SELECT hansa.tenant())")


async def shared_among(database: Database, names: Sequence[str]) -> list[str]:
    """Those of the tenants that have their rows in the platform's database."""
    if not names:
        return []
    rows = await database.system("SELECT name FROM hansa.tenants WHERE name = ANY ($1) AND database = 'Shared'", names)
    return [row["name"] for row in rows]


async def copy_region(database: Database, own: Database, name: str) -> None:
    """Let a tenant's own database say of a region what the platform's says."""
    row = await database.call_row("SELECT name, display_name, cordoned, changed_at FROM hansa.regions WHERE name = $1", name)
    if row is not None:
        await own.call(
            "INSERT INTO hansa.regions AS r (name, display_name, cordoned, changed_at) VALUES ($1, $2, $3, $4) "
            "ON CONFLICT (name) DO UPDATE SET display_name = $2, cordoned = $3, changed_at = $4 "
            "WHERE (r.display_name, r.cordoned) IS DISTINCT FROM (excluded.display_name, excluded.cordoned)",
            *row,
        )


async def update_region(connection: Connection, name: str, *, display_name: str, cordoned: bool) -> bool:
    """Change a region; false: there is none of this name."""
    done = await connection.execute(
        "UPDATE hansa.regions SET display_name = $2, cordoned = $3, changed_at = CASE WHEN cordoned = $3 THEN changed_at ELSE now() END "
        "WHERE name = $1",
        *(name, display_name, cordoned),
    )
    return done != "UPDATE 0"


LIMITS = """
SELECT b.*, t.concurrent_runs, t.most_agents, t.storage_bytes, t.messages_per_day, b.begun >= n.begun AS same_period,
  b.day >= n.today AS same_day,
  greatest(b.begun, n.begun) AS since, hansa.period_end(greatest(b.begun, n.begun), b.period) AS period_end,
  greatest(b.day, n.today) AS day_since, hansa.period_end(greatest(b.day, n.today), 'day') AS day_end,
  (SELECT count(*) FROM hansa.agents a WHERE t.most_agents IS NOT NULL AND a.tenant_id = t.tenant_id) AS agents,
  (SELECT coalesce(sum(s.bytes), 0)::bigint FROM hansa.storage s WHERE s.tenant_id = t.tenant_id) AS kept_bytes,
  coalesce((SELECT m.sent FROM hansa.message_counts m WHERE m.tenant_id = t.tenant_id AND m.day >= n.today), 0) AS sent,
  n.today, hansa.period_end(n.today, 'day') AS tomorrow,
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
