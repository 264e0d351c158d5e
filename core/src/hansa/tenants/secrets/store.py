"""All SQL about data keys and secrets. Warning: a row's bytes are never put into a text."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from hansa.db.pool import Connection, Database
from hansa.secrets.keyring import StoredKey
from hansa.tenants.secrets.model import DataKey, Kept, Sealed

VIEW = """json_build_object('name', s.name, 'version', s.version, 'source', s.source, 'path', s.path, 'hosts', s.hosts,
  'made_by', s.made_by, 'created_at', s.created_at, 'versions', (SELECT json_agg(v.version ORDER BY v.version) FROM hansa.secrets v
    WHERE v.tenant_id = s.tenant_id AND v.name = s.name))"""
"""A secret as people see it: never what it holds."""


async def lock_keys(connection: Connection) -> None:
    """Let only one transaction at a time make a data key of the tenant."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('hansa.data_keys.' || hansa.tenant()::text, 0))")


async def newest_key(connection: Connection) -> DataKey | None:
    """The data key that encrypts now; it stays until the end of the transaction."""
    row = await connection.fetchrow(
        "SELECT generation, kek, key_id, wrapped FROM hansa.data_keys WHERE tenant_id = (SELECT hansa.tenant()) "
        "ORDER BY generation DESC LIMIT 1 FOR KEY SHARE"
    )
    return None if row is None else _data_key(row)


async def data_keys(connection: Connection) -> list[DataKey]:
    """All data keys of the tenant, the oldest first."""
    rows = await connection.fetch(
        "SELECT generation, kek, key_id, wrapped FROM hansa.data_keys WHERE tenant_id = (SELECT hansa.tenant()) ORDER BY generation"
    )
    return [_data_key(row) for row in rows]


async def insert_key(connection: Connection, generation: int, stored: StoredKey) -> None:
    """Keep a new data key."""
    await connection.execute(
        "INSERT INTO hansa.data_keys (tenant_id, generation, kek, key_id, wrapped) VALUES ((SELECT hansa.tenant()), $1, $2, $3, $4)",
        generation,
        stored.kek,
        stored.key_id,
        stored.wrapped,
    )


async def replace_key(connection: Connection, generation: int, *, before: StoredKey, after: StoredKey) -> bool:
    """Put another wrapping in the place of the one that was read; false: someone else was first."""
    done = await connection.execute(
        "UPDATE hansa.data_keys SET kek = $3, key_id = $4, wrapped = $5 "
        "WHERE tenant_id = (SELECT hansa.tenant()) AND generation = $1 AND wrapped = $2",
        generation,
        before.wrapped,
        after.kek,
        after.key_id,
        after.wrapped,
    )
    return done != "UPDATE 0"


async def drop_unused_keys(connection: Connection) -> None:
    """Delete older data keys that no secret needs any more."""
    # Whoever is just sealing with one of them is waited for, so that the next statement sees what came of it.
    await connection.execute("SELECT FROM hansa.data_keys WHERE tenant_id = (SELECT hansa.tenant()) FOR UPDATE")
    await connection.execute(
        "DELETE FROM hansa.data_keys k WHERE k.tenant_id = (SELECT hansa.tenant()) "
        "AND k.generation < (SELECT max(n.generation) FROM hansa.data_keys n WHERE n.tenant_id = k.tenant_id) "
        "AND NOT EXISTS (SELECT FROM hansa.secrets s WHERE s.tenant_id = k.tenant_id AND s.generation = k.generation)"
    )


async def shred(connection: Connection) -> None:
    """Delete the tenant's secrets and data keys: what is left of them in backups can't be opened by anyone who lacks those keys."""
    await connection.execute("DELETE FROM hansa.secrets WHERE tenant_id = (SELECT hansa.tenant())")
    await connection.execute("DELETE FROM hansa.data_keys WHERE tenant_id = (SELECT hansa.tenant())")


async def other_keys(database: Database, kek: str, key_id: str, *, after: tuple[UUID, int], limit: int) -> list[tuple[UUID, int]]:
    """Over all tenants: (tenant, generation) of data keys that another key wraps, in their order."""
    rows = await database.system(
        "SELECT tenant_id, generation FROM hansa.data_keys WHERE (kek, key_id) <> ($1, $2) "
        "AND (tenant_id, generation) > ($3, $4) ORDER BY tenant_id, generation LIMIT $5",
        kek,
        key_id,
        *after,
        limit,
    )
    return [(row["tenant_id"], row["generation"]) for row in rows]


async def count_keys(database: Database, kek: str, key_id: str) -> tuple[int, int]:
    """Over all tenants: how many data keys there are, and how many of them another key wraps."""
    rows = await database.system(
        "SELECT count(generation) AS total, count(generation) FILTER (WHERE (kek, key_id) <> ($1, $2)) AS other FROM hansa.data_keys",
        kek,
        key_id,
    )
    return rows[0]["total"], rows[0]["other"]


async def tenant_name(connection: Connection) -> str:
    """The name of the connection's tenant."""
    return str(await connection.fetchval("SELECT name FROM hansa.tenants WHERE tenant_id = (SELECT hansa.tenant())"))


async def next_version(connection: Connection, name: str) -> int:
    """The number of the next version of a secret, which only this transaction may make."""
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('hansa.secrets.' || hansa.tenant()::text || '.' || $1::text, 0))", name
    )
    newest = await connection.fetchval(
        "SELECT max(version) FROM hansa.secrets WHERE tenant_id = (SELECT hansa.tenant()) AND name = $1", name
    )
    return (newest or 0) + 1


async def count_names(connection: Connection) -> int:
    """How many secrets the tenant has."""
    return int(await connection.fetchval("SELECT count(DISTINCT name) FROM hansa.secrets WHERE tenant_id = (SELECT hansa.tenant())"))


HOSTS = """CASE WHEN $6::text[] IS NULL
  THEN (SELECT b.hosts FROM hansa.secrets b WHERE b.tenant_id = (SELECT hansa.tenant()) AND b.name = $1 ORDER BY b.version DESC LIMIT 1)
  ELSE nullif($6::text[], '{}') END"""
"""Those given as $6, or those of the last version of the secret $1; NULL for an empty list."""


async def insert_sealed(connection: Connection, found: Sealed, *, hosts: Sequence[str] | None, made_by: str) -> None:
    """Keep a version of a secret. `hosts` None: those of the version before."""
    await connection.execute(
        "INSERT INTO hansa.secrets (tenant_id, name, version, generation, sealed, made_by, hosts) "
        f"VALUES ((SELECT hansa.tenant()), $1, $2, $3, $4, $5, {HOSTS})",
        found.name,
        found.version,
        found.generation,
        found.sealed,
        made_by,
        hosts,
    )


async def insert_reference(
    connection: Connection, name: str, version: int, *, place: tuple[str, str], hosts: Sequence[str] | None, made_by: str
) -> None:
    """Keep a version of a secret that another system keeps, at `place`: source and path. `hosts` None: those of the version before."""
    await connection.execute(
        "INSERT INTO hansa.secrets (tenant_id, name, version, source, path, made_by, hosts) "
        f"VALUES ((SELECT hansa.tenant()), $1, $2, $3, $4, $5, {HOSTS})",
        name,
        version,
        *place,
        made_by,
        hosts,
    )


async def prune(connection: Connection, name: str, *, below: int) -> None:
    """Delete versions that are older than `below`."""
    await connection.execute(
        "DELETE FROM hansa.secrets WHERE tenant_id = (SELECT hansa.tenant()) AND name = $1 AND version < $2", name, below
    )


async def delete(connection: Connection, name: str) -> bool:
    """Delete all versions of a secret; false: there is none."""
    done = await connection.execute("DELETE FROM hansa.secrets WHERE tenant_id = (SELECT hansa.tenant()) AND name = $1", name)
    return done != "DELETE 0"


async def read(connection: Connection, name: str) -> str | None:
    """A secret as people see it, as JSON text."""
    return await connection.fetchval(
        f"SELECT {VIEW} FROM hansa.secrets s WHERE s.tenant_id = (SELECT hansa.tenant()) AND s.name = $1 ORDER BY s.version DESC LIMIT 1",
        name,
    )


async def page(connection: Connection, after: str, limit: int) -> list[tuple[str, str]]:
    """Secrets by name: (name, as people see it, as JSON text)."""
    rows = await connection.fetch(
        f"SELECT DISTINCT ON (s.name) s.name, {VIEW} AS body FROM hansa.secrets s "
        "WHERE s.tenant_id = (SELECT hansa.tenant()) AND s.name > $1 ORDER BY s.name, s.version DESC LIMIT $2",
        after,
        limit,
    )
    return [(row["name"], row["body"]) for row in rows]


async def names(connection: Connection) -> set[str]:
    """Names of all secrets of the tenant."""
    rows = await connection.fetch("SELECT DISTINCT name FROM hansa.secrets WHERE tenant_id = (SELECT hansa.tenant())")
    return {row["name"] for row in rows}


async def find(database: Database, tenant_id: UUID, name: str) -> Kept | None:
    """The version of a secret that counts, in one round trip."""
    row = await database.call_row("SELECT * FROM hansa.secret_read($1, $2)", tenant_id, name)
    return None if row is None else msgspec.convert(dict(row), Kept)


async def users(connection: Connection, name: str) -> list[str]:
    """Objects that name a secret, as `Kind name`."""
    rows = await connection.fetch(
        "SELECT kind || ' ' || name AS body FROM hansa.objects WHERE tenant_id = (SELECT hansa.tenant()) "
        "AND (manifest->'spec'->'credentials'->>'secret' = $1 OR (kind = 'Agent' AND EXISTS ("
        "SELECT FROM json_array_elements(coalesce(manifest->'spec'->'tools', '[]')) u, json_each(coalesce(u->'secrets', '{}')) d "
        "WHERE d.value->>'secret' = $1))) ORDER BY kind, name LIMIT 20",
        name,
    )
    return [row["body"] for row in rows]


async def behind(connection: Connection, generation: int, *, skip: Sequence[str], limit: int) -> list[Sealed]:
    """Versions that an older data key has sealed and nobody else is at work on, locked. `skip`: those as `name vN`."""
    rows = await connection.fetch(
        "SELECT name, version, generation, sealed FROM hansa.secrets WHERE tenant_id = (SELECT hansa.tenant()) AND generation < $1 "
        "AND NOT (name || ' v' || version = ANY($2)) ORDER BY name, version LIMIT $3 FOR UPDATE SKIP LOCKED",
        generation,
        list(skip),
        limit,
    )
    return [msgspec.convert(dict(row), Sealed) for row in rows]


async def reseal(connection: Connection, found: Sequence[Sealed]) -> None:
    """Put in other seals for versions that are locked."""
    await connection.executemany(
        "UPDATE hansa.secrets SET generation = $3, sealed = $4 WHERE tenant_id = (SELECT hansa.tenant()) AND name = $1 AND version = $2",
        [(each.name, each.version, each.generation, each.sealed) for each in found],
    )


async def count_sealed(connection: Connection, generation: int) -> tuple[int, int]:
    """How many sealed versions the tenant has, and how many of them by an older data key than `generation`."""
    row = await connection.fetchrow(
        "SELECT count(*) AS total, count(*) FILTER (WHERE generation < $1) AS behind FROM hansa.secrets "
        "WHERE tenant_id = (SELECT hansa.tenant()) AND generation IS NOT NULL",
        generation,
    )
    return (0, 0) if row is None else (row["total"], row["behind"])


def _data_key(row: Any) -> DataKey:
    return DataKey(row["generation"], row["kek"], row["key_id"], bytes(row["wrapped"]))
