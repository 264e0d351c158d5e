"""All SQL about objects."""

from collections.abc import Sequence
from typing import Any

import asyncpg

from hansa.db.pool import Connection
from hansa_crds import Agent

OBJECT = """json_build_object('kind', kind, 'name', name, 'generation', generation, 'manager', manager, 'manifest', manifest,
  'source', source, 'status', status, 'created_at', created_at, 'updated_at', updated_at)"""

MADE_KINDS = ("Tenant", "Region")
MADE = """json_build_object('kind', kind, 'name', name, 'generation', 0, 'manager', 'platform', 'manifest', json_build_object(
  'apiVersion', 'hansa.dev/v1alpha1', 'kind', kind, 'metadata', json_build_object('name', name), 'spec', spec),
  'source', NULL, 'status', NULL, 'created_at', created_at, 'updated_at', created_at)"""
ALL = f"""(
  SELECT kind, name, {OBJECT} AS body FROM hansa.objects WHERE tenant_id = (SELECT hansa.tenant())
  UNION ALL SELECT kind, name, {MADE} FROM (
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


async def find(connection: Connection, kind: str, name: str) -> asyncpg.Record | None:
    """An object, locked for this transaction: record (generation, digest, manifest)."""
    return await connection.fetchrow(
        "SELECT generation, digest, manifest FROM hansa.objects "
        "WHERE tenant_id = (SELECT hansa.tenant()) AND kind = $1 AND name = $2 FOR UPDATE",
        kind,
        name,
    )


async def read(connection: Connection, kind: str, name: str) -> str | None:
    """An object as JSON text."""
    return await connection.fetchval(f"SELECT body FROM {ALL} found WHERE kind = $1 AND name = $2", kind, name)


async def page(connection: Connection, kind: str | None, after: tuple[str, str], limit: int) -> list[asyncpg.Record]:
    """Objects by kind and name: records (kind, name, body as JSON text)."""
    if kind is None or kind in MADE_KINDS:
        return await connection.fetch(
            f"SELECT kind, name, body FROM {ALL} found "
            "WHERE ($1::text IS NULL OR kind = $1) AND (kind, name) > ($2, $3) ORDER BY kind, name LIMIT $4",
            kind,
            *after,
            limit,
        )
    return await connection.fetch(
        f"SELECT kind, name, {OBJECT} AS body FROM hansa.objects WHERE tenant_id = (SELECT hansa.tenant()) "
        "AND kind = $1 AND (kind, name) > ($2, $3) ORDER BY name LIMIT $4",
        kind,
        *after,
        limit,
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


async def upsert(connection: Connection, values: dict[str, Any]) -> int:
    """Write an object (kind, name, manager, manifest, digest, source); its new generation."""
    return await connection.fetchval(
        "INSERT INTO hansa.objects (tenant_id, kind, name, generation, manager, manifest, digest, source) "
        "VALUES (hansa.tenant(), $1, $2, 1, $3, $4, $5, $6) ON CONFLICT (tenant_id, kind, name) DO UPDATE SET "
        "generation = objects.generation + 1, manager = $3, manifest = $4, digest = $5, source = $6, updated_at = clock_timestamp() "
        "RETURNING generation",
        *(values[name] for name in ("kind", "name", "manager", "manifest", "digest", "source")),
    )


async def set_owner(connection: Connection, agent: str, owner: str) -> None:
    """Keep who applied an agent last, as JSON text."""
    await connection.execute(
        "SELECT hansa.agent_owned((SELECT hansa.tenant()), $1, $2)",
        agent,
        owner,
    )


async def agent_changed(connection: Connection, agent: Agent, revision: int) -> None:
    """Keep what starting a run needs to know of its agent, and let its runs know whether they are held."""
    spec = agent.spec
    await connection.execute(
        "SELECT hansa.agent_changed((SELECT hansa.tenant()), $1, $2, $3, $4, hansa.pool_of((SELECT hansa.tenant()), $5), $6)",
        agent.metadata.name,
        revision,
        spec.suspend,
        spec.concurrency,
        spec.placement.pool,
        spec.limits.concurrent_runs or None,
    )


async def delete(connection: Connection, kind: str, name: str) -> bool:
    """Delete an object; false: there was none."""
    done = await connection.execute(
        "DELETE FROM hansa.objects WHERE tenant_id = (SELECT hansa.tenant()) AND kind = $1 AND name = $2", kind, name
    )
    if kind == "Agent":
        await connection.execute("SELECT hansa.agent_deleted((SELECT hansa.tenant()), $1)", name)
    return done != "DELETE 0"


async def add_revision(connection: Connection, agent: str, *, digest: bytes, manifest: str) -> int:
    """The agent's newest revision if its digest is the same, else a new one. The object's row is locked by the caller."""
    newest = await connection.fetchrow(
        "SELECT revision, digest FROM hansa.agent_revisions "
        "WHERE tenant_id = (SELECT hansa.tenant()) AND agent = $1 ORDER BY revision DESC LIMIT 1",
        agent,
    )
    if newest is not None and newest["digest"] == digest:
        return newest["revision"]
    revision = newest["revision"] + 1 if newest is not None else 1
    await connection.execute(
        "INSERT INTO hansa.agent_revisions (tenant_id, agent, revision, digest, manifest) VALUES (hansa.tenant(), $1, $2, $3, $4)",
        agent,
        revision,
        digest,
        manifest,
    )
    return revision
