"""All SQL about objects, the namespaces that lead to tenants, and the sources of objects."""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import msgspec

from hansa.apply.model import Kept, Owner
from hansa.db.pool import Connection, Database
from hansa_crds import Agent

OBJECT = """json_build_object('kind', kind, 'name', name, 'generation', generation, 'manager', manager, 'origin', origin, 'commit', commit,
  'applied_by', applied_by, 'manifest', manifest, 'source', source, 'status', status, 'created_at', created_at, 'updated_at', updated_at)"""

MADE_KINDS = ("Tenant", "Region")
MADE = """json_build_object('kind', kind, 'name', name, 'generation', 0, 'manager', 'platform', 'origin', '', 'commit', '',
  'applied_by', '', 'manifest', json_build_object('apiVersion', 'hansa.dev/v1alpha1', 'kind', kind,
  'metadata', json_build_object('name', name), 'spec', spec),
  'source', NULL, 'status', NULL, 'created_at', created_at, 'updated_at', created_at)"""
ALL = f"""(
  SELECT kind, name, manager, origin, manifest, {OBJECT} AS body FROM hansa.objects WHERE tenant_id = (SELECT hansa.tenant())
  UNION ALL SELECT kind, name, 'platform', '', NULL::json, {MADE} FROM (
    SELECT 'Tenant'::text AS kind, name, json_build_object('displayName', display_name, 'suspend', suspended) AS spec, created_at
    FROM hansa.tenants WHERE tenant_id = (SELECT hansa.tenant())
    UNION ALL SELECT 'Region', name, json_build_object('displayName', display_name, 'cordoned', cordoned), created_at FROM hansa.regions
  ) made WHERE NOT EXISTS (
    SELECT FROM hansa.objects o WHERE o.tenant_id = (SELECT hansa.tenant()) AND o.kind = made.kind AND o.name = made.name)
)"""
"""Objects, and the tenant and the regions that the platform made and nobody has yet applied."""


async def allowed(connection: Connection) -> str | None:
    """What the connection's tenant may use, as JSON text; None: its object says nothing of it."""
    return await connection.fetchval(
        "SELECT manifest -> 'spec' -> 'allowed' FROM hansa.objects WHERE tenant_id = (SELECT hansa.tenant()) AND kind = 'Tenant' LIMIT 1"
    )


FILTERED = """($1::text IS NULL OR kind = $1) AND ($2::text IS NULL OR manager = $2) AND ($3::text IS NULL OR origin = $3)
  AND ($4::text IS NULL OR kind NOT IN ('Region', 'Tenant') AND coalesce(manifest -> 'metadata' ->> 'namespace',
    (SELECT t.name FROM hansa.tenants t WHERE t.tenant_id = (SELECT hansa.tenant()))) = $4) AND (kind, name) > ($5, $6)
  AND ($8::text[] IS NULL OR kind NOT IN ('Region', 'Tenant') AND coalesce(manifest -> 'metadata' ->> 'namespace',
    (SELECT t.name FROM hansa.tenants t WHERE t.tenant_id = (SELECT hansa.tenant()))) = ANY ($8))"""


class Filters(msgspec.Struct, frozen=True):
    """Which objects are listed; None: whatever it is. `namespace`: of objects that name none, the name of the tenant; a Tenant and a Region
    stand in none. `within`: only what stands in these."""

    kind: str | None = None
    manager: str | None = None
    origin: str | None = None
    namespace: str | None = None
    within: tuple[str, ...] | None = None


class Standing(msgspec.Struct, frozen=True):
    """A namespace in which objects stand: how many, and one of them as `Agent/greeter`."""

    namespace: str
    many: int
    one: str


class Row(msgspec.Struct, frozen=True):
    """An object to be written; `manifest` and `source` are JSON texts."""

    name: str
    manifest: str
    digest: bytes
    source: str | None


async def lock(connection: Connection, kind: str, names: Sequence[str]) -> dict[str, Kept]:
    """Objects of a kind, those that are there, locked for this transaction in the order of their names."""
    rows = await connection.fetch(
        "SELECT name, generation, digest, manifest, manager, origin, commit, source, applied_by FROM hansa.objects "
        "WHERE tenant_id = (SELECT hansa.tenant()) AND kind = $1 AND name = ANY ($2) ORDER BY name FOR UPDATE",
        kind,
        names,
    )
    return {row["name"]: Kept(*row) for row in rows}


async def hold(connection: Connection, kind: str, names: Sequence[str]) -> None:
    """Let nobody else who does the same have objects of these names, there or not, until the end of the transaction."""
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('hansa.objects/' || $1 || '/' || name, 0)) FROM unnest($2::text[]) name", kind, names
    )


async def read(connection: Connection, kind: str, name: str) -> str | None:
    """An object as JSON text."""
    return await connection.fetchval(f"SELECT body FROM {ALL} found WHERE kind = $1 AND name = $2", kind, name)


async def page(connection: Connection, filters: Filters, after: tuple[str, str], limit: int) -> list[asyncpg.Record]:
    """Objects by kind and name: records (kind, name, body as JSON text)."""
    values = (filters.kind, filters.manager, filters.origin, filters.namespace, *after, limit, filters.within)
    if filters.kind is None or filters.kind in MADE_KINDS:
        return await connection.fetch(f"SELECT kind, name, body FROM {ALL} found WHERE {FILTERED} ORDER BY kind, name LIMIT $7", *values)
    return await connection.fetch(
        f"SELECT kind, name, {OBJECT} AS body FROM hansa.objects WHERE tenant_id = (SELECT hansa.tenant()) AND {FILTERED} "
        "AND kind = $1 ORDER BY name LIMIT $7",
        *values,
    )


async def manifests(connection: Connection, kind: str) -> list[str]:
    """All manifests of a kind, as JSON texts."""
    rows = await connection.fetch(
        "SELECT manifest FROM hansa.objects WHERE tenant_id = (SELECT hansa.tenant()) AND kind = $1 ORDER BY name", kind
    )
    return [row["manifest"] for row in rows]


async def tool_servers(connection: Connection, names: Sequence[str]) -> list[str]:
    """Manifest and status of ToolServers, those that are there, as JSON texts."""
    rows = await connection.fetch(
        "SELECT json_build_object('manifest', manifest, 'status', status) AS body FROM hansa.objects "
        "WHERE tenant_id = (SELECT hansa.tenant()) AND kind = 'ToolServer' AND name = ANY($1) ORDER BY name",
        names,
    )
    return [row["body"] for row in rows]


async def set_status(connection: Connection, kind: str, name: str, *, status: str) -> None:
    """Keep what the platform knows of an object. Its generation stays: that counts what people write."""
    await connection.execute(
        "UPDATE hansa.objects SET status = $3 WHERE tenant_id = (SELECT hansa.tenant()) AND kind = $1 AND name = $2", kind, name, status
    )


async def write(connection: Connection, kind: str, rows: Sequence[Row], owner: Owner, **values: Any) -> dict[str, int]:
    """Write objects of a kind (`commit`, `applied_by`; `force`: also those of another owner): name -> generation, without those that are
    another owner's. A generation counts contents."""
    written = await connection.fetch(
        "INSERT INTO hansa.objects AS o (tenant_id, kind, name, generation, manager, origin, commit, applied_by, manifest, digest, source) "
        "SELECT hansa.tenant(), $1, n.name, 1, $2, $3, $4, $5, n.manifest::json, n.digest, n.source::json "
        "FROM unnest($7::text[], $8::text[], $9::bytea[], $10::text[]) WITH ORDINALITY n(name, manifest, digest, source, place) "
        "ORDER BY n.place ON CONFLICT (tenant_id, kind, name) DO UPDATE SET "
        "generation = o.generation + (o.digest <> excluded.digest)::integer, "
        "manager = excluded.manager, origin = excluded.origin, commit = excluded.commit, applied_by = excluded.applied_by, "
        "manifest = excluded.manifest, digest = excluded.digest, source = excluded.source, "
        "updated_at = CASE WHEN o.digest = excluded.digest THEN o.updated_at ELSE clock_timestamp() END "
        "WHERE $6 OR (o.manager = excluded.manager AND o.origin = excluded.origin) RETURNING name, generation",
        *(kind, owner.manager, owner.origin, values["commit"], values["applied_by"], values["force"]),
        *([getattr(row, field) for row in rows] for field in ("name", "manifest", "digest", "source")),
    )
    return {row["name"]: row["generation"] for row in written}


async def move(connection: Connection, kind: str, places: Mapping[str, str], *, commit: str, applied_by: str) -> None:
    """Keep where objects are written now, which are as they were: name -> source as JSON text."""
    await connection.execute(
        "UPDATE hansa.objects o SET source = n.source::json, commit = $2, applied_by = $3 "
        "FROM unnest($4::text[], $5::text[]) n(name, source) "
        "WHERE o.tenant_id = (SELECT hansa.tenant()) AND o.kind = $1 AND o.name = n.name",
        *(kind, commit, applied_by, list(places), list(places.values())),
    )


async def take_over(connection: Connection, kind: str, name: str, owner: Owner, *, by: str) -> None:
    """Give an object another owner, who has not yet said where it is written."""
    await connection.execute(
        "UPDATE hansa.objects SET manager = $3, origin = $4, commit = '', source = NULL, applied_by = $5 "
        "WHERE tenant_id = (SELECT hansa.tenant()) AND kind = $1 AND name = $2",
        *(kind, name, owner.manager, owner.origin, by),
    )


async def count(connection: Connection, owner: Owner) -> dict[str, int]:
    """How many objects an owner has in the connection's tenant, by their kinds."""
    rows = await connection.fetch(
        "SELECT kind, count(*) AS many FROM hansa.objects WHERE tenant_id = (SELECT hansa.tenant()) AND manager = $1 AND origin = $2 "
        "GROUP BY kind",
        *(owner.manager, owner.origin),
    )
    return {row["kind"]: row["many"] for row in rows}


async def set_appliers(connection: Connection, agents: Sequence[str], applier: str) -> bool:
    """Keep who applied agents last, as JSON text; whether that is another one for any of them."""
    return await connection.fetchval(
        "SELECT coalesce(bool_or(hansa.agent_owned((SELECT hansa.tenant()), n, $2::json)), false) FROM unnest($1::text[]) n",
        agents,
        applier,
    )


async def place_agents(connection: Connection, places: Mapping[str, str]) -> None:
    """Keep in which namespaces agents stand: name -> namespace."""
    await connection.execute(
        "UPDATE hansa.agents a SET namespace = n.namespace FROM unnest($1::text[], $2::text[]) n(name, namespace) "
        "WHERE a.tenant_id = (SELECT hansa.tenant()) AND a.name = n.name AND a.namespace IS DISTINCT FROM n.namespace",
        *(list(places), list(places.values())),
    )


async def agents_changed(connection: Connection, agents: Sequence[tuple[Agent, int]]) -> None:
    """Keep what starting a run needs to know of agents and their revisions, and let their runs know whether they are held."""
    await connection.executemany(
        "SELECT hansa.agent_changed((SELECT hansa.tenant()), $1, $2, $3, $4, hansa.pool_of((SELECT hansa.tenant()), $5), $6)",
        [
            (
                agent.metadata.name,
                revision,
                agent.spec.suspend,
                agent.spec.concurrency,
                agent.spec.placement.pool,
                agent.spec.limits.concurrent_runs or None,
            )
            for agent, revision in agents
        ],
    )


async def delete(connection: Connection, kind: str, names: Sequence[str]) -> None:
    """Delete objects of a kind."""
    await connection.execute(
        "DELETE FROM hansa.objects WHERE tenant_id = (SELECT hansa.tenant()) AND kind = $1 AND name = ANY ($2)", kind, names
    )
    if kind == "Agent":
        await connection.executemany("SELECT hansa.agent_deleted((SELECT hansa.tenant()), $1)", [(name,) for name in names])


async def revisions(connection: Connection, agents: Sequence[str]) -> dict[str, tuple[int, bytes, str | None]]:
    """The newest revision of each agent that has one: name -> (number, digest of its spec, the namespace that its manifest says)."""
    rows = await connection.fetch(
        "SELECT a.name, r.revision, r.digest, r.manifest -> 'metadata' ->> 'namespace' AS namespace "
        "FROM unnest($1::text[]) a(name) CROSS JOIN LATERAL (SELECT revision, digest, manifest "
        "FROM hansa.agent_revisions WHERE tenant_id = (SELECT hansa.tenant()) AND agent = a.name ORDER BY revision DESC LIMIT 1) r",
        agents,
    )
    return {row["name"]: (row["revision"], row["digest"], row["namespace"]) for row in rows}


async def add_revisions(connection: Connection, rows: Sequence[tuple[str, int, bytes, str]]) -> None:
    """Keep revisions of agents, whose objects are locked by the caller: (agent, number, digest of its spec, manifest as JSON text)."""
    await connection.executemany(
        "INSERT INTO hansa.agent_revisions (tenant_id, agent, revision, digest, manifest) VALUES (hansa.tenant(), $1, $2, $3, $4)", rows
    )


async def namespaces(connection: Connection) -> set[str]:
    """All names that lead to the connection's tenant."""
    rows = await connection.fetch("SELECT name FROM hansa.namespaces WHERE tenant_id = (SELECT hansa.tenant())")
    return {row["name"] for row in rows}


async def tenants_of(database: Database, names: Sequence[str]) -> dict[str, str]:
    """The tenants that names lead to, of those names that do."""
    rows = await database.system(
        "SELECT n.name AS namespace, t.name FROM hansa.namespaces n JOIN hansa.tenants t USING (tenant_id) WHERE n.name = ANY ($1)", names
    )
    return {row["namespace"]: row["name"] for row in rows}


async def tenants_owned(database: Database, filters: Filters, since: str, limit: int) -> list[str]:
    """Names of tenants, from one on, in which objects are that the filters admit by kind, manager and origin; in all databases.
    Raises `Unavailable` when one is away."""
    found = set[str]()
    for each in database.every:
        rows = await each.system(
            "SELECT t.name FROM hansa.tenants t WHERE t.name >= $4 AND EXISTS (SELECT FROM hansa.objects o WHERE o.tenant_id = t.tenant_id "
            "AND ($1::text IS NULL OR o.kind = $1) AND o.manager = $2 AND o.origin = $3) ORDER BY t.name LIMIT $5",
            *(filters.kind, filters.manager, filters.origin, since, limit),
        )
        found |= {row["name"] for row in rows}
    return sorted(found)[:limit]


async def claim(connection: Connection, names: Sequence[str]) -> set[str]:
    """Make names lead to the connection's tenant; those that do now. Waits for whoever claims one of them at this moment."""
    rows = await connection.fetch(
        "INSERT INTO hansa.namespaces (tenant_id, name) SELECT hansa.tenant(), name FROM unnest($1::text[]) name ORDER BY name "
        "ON CONFLICT DO NOTHING RETURNING name",
        names,
    )
    return {row["name"] for row in rows}


async def unclaim(connection: Connection, names: Sequence[str]) -> None:
    """Make names lead to the connection's tenant no more."""
    await connection.execute("DELETE FROM hansa.namespaces WHERE tenant_id = (SELECT hansa.tenant()) AND name = ANY ($1)", names)


async def inhabited(connection: Connection, names: Sequence[str]) -> list[Standing]:
    """Of these namespaces of the connection's tenant those in which objects stand."""
    rows = await connection.fetch(
        "SELECT manifest -> 'metadata' ->> 'namespace' AS namespace, count(*) AS many, min(kind || '/' || name) AS one FROM hansa.objects "
        "WHERE tenant_id = (SELECT hansa.tenant()) AND manifest -> 'metadata' ->> 'namespace' = ANY ($1) GROUP BY 1 ORDER BY 1",
        names,
    )
    return [Standing(*row) for row in rows]


SOURCE = """json_build_object('id', id, 'origin', origin, 'ref', ref, 'commit', commit, 'state', state, 'message', message,
  'errors', errors, 'seen_at', seen_at, 'applied_at', applied_at, 'told_by', told_by, 'owner', owner)"""


async def put_source(connection: Connection, source_id: str, told: Any, *, errors: str, by: str, owner: str) -> tuple[str, str]:
    """Keep what a source tells of itself, unless something newer is known; whose it is, `owner`'s if it was nobody's, and how it is kept,
    as JSON text. Of a clock that is ahead the time is not believed: nothing would be newer for as long."""
    await connection.execute(
        "INSERT INTO hansa.sources AS s (tenant_id, id, origin, ref, commit, state, message, errors, seen_at, applied_at, told_by, owner) "
        "VALUES (hansa.tenant(), $1, $2, $3, $4, $5, $6, $7, least($8, clock_timestamp()), $9, $10, $11) "
        "ON CONFLICT (tenant_id, id) DO UPDATE SET origin = $2, ref = $3, commit = $4, state = $5, message = $6, errors = $7, "
        "seen_at = excluded.seen_at, applied_at = coalesce($9, s.applied_at), told_by = $10, owner = coalesce(nullif(s.owner, ''), $11) "
        "WHERE s.seen_at <= excluded.seen_at",
        *(source_id, told.origin, told.ref, told.commit, told.state, told.message, errors, told.seen_at, told.applied_at, by, owner),
    )
    (row,) = await connection.fetch(
        f"SELECT owner, {SOURCE} AS body FROM hansa.sources WHERE tenant_id = (SELECT hansa.tenant()) AND id = $1", source_id
    )
    return row["owner"], row["body"]


async def owner_of_source(connection: Connection, source_id: str) -> str | None:
    """Whose a source is; empty: nobody's, None: there is none."""
    return await connection.fetchval("SELECT owner FROM hansa.sources WHERE tenant_id = (SELECT hansa.tenant()) AND id = $1", source_id)


async def count_sources(connection: Connection, but: str) -> int:
    """How many sources the connection's tenant has, one left out."""
    return await connection.fetchval("SELECT count(*) FROM hansa.sources WHERE tenant_id = (SELECT hansa.tenant()) AND id <> $1", but)


async def page_sources(connection: Connection, after: str, limit: int, *, owners: list[str] | None) -> list[asyncpg.Record]:
    """Sources by their ids, `owners`: those of one whose names these are: records (id, body as JSON text)."""
    return await connection.fetch(
        f"SELECT id, {SOURCE} AS body FROM hansa.sources WHERE tenant_id = (SELECT hansa.tenant()) AND id > $1 "
        "AND ($3::text[] IS NULL OR owner = ANY ($3)) ORDER BY id LIMIT $2",
        *(after, limit, owners),
    )


async def delete_source(connection: Connection, source_id: str) -> str | None:
    """Forget a source; whose it was, None: there was none."""
    sql = "DELETE FROM hansa.sources WHERE tenant_id = (SELECT hansa.tenant()) AND id = $1 RETURNING owner"
    return await connection.fetchval(sql, source_id)
