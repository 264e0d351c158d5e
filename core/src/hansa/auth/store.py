"""All SQL about API keys and idempotency keys."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from hansa.auth.keys import mark_of
from hansa.auth.model import Grant, Principal, StoredAccount, StoredIssuer, StoredKey
from hansa.db.pool import Connection, Database
from hansa_crds import Issuer, RoleBinding

FIND = """
SELECT k.tenant_id, t.name AS tenant, k.id, k.digest, k.roles, k.scopes, k.expires_at, k.revoked_at, k.service_account,
  (SELECT a.roles FROM hansa.service_accounts a WHERE a.tenant_id = k.tenant_id AND a.name = k.service_account) AS account_roles,
  CASE WHEN k.service_account IS NOT NULL THEN t.role_bindings END AS bindings,
  (k.used_at < now() - interval '1 minute') IS NOT FALSE AS unused,
  t.requests_per_second IS NOT NULL AS rated, t.state, t.database
FROM hansa.api_keys k JOIN hansa.tenants t USING (tenant_id) WHERE k.id = $1
"""
FIND_ISSUERS = """
SELECT i.tenant_id, t.name AS tenant, i.entry, t.role_bindings, t.requests_per_second IS NOT NULL AS rated, t.database
FROM hansa.issuers i JOIN hansa.tenants t USING (tenant_id) WHERE i.issuer = $1 AND t.state = 'active'
ORDER BY i.tenant_id, i.audience
"""
VIEW = """json_build_object('id', id, 'name', name, 'service_account', service_account, 'roles', roles, 'scopes', scopes,
  'made_by', made_by, 'created_at', created_at, 'expires_at', expires_at, 'used_at', used_at, 'revoked_at', revoked_at)"""
"""An API key as people see it."""
ACCOUNT = "json_build_object('name', name, 'description', description, 'roles', roles, 'made_by', made_by, 'created_at', created_at)"
"""A service account as people see it."""
READ = f"""
SELECT name, roles, scopes, service_account, expires_at, revoked_at IS NOT NULL OR (expires_at <= now()) IS TRUE AS dead, {VIEW} AS body
FROM hansa.api_keys WHERE tenant_id = (SELECT hansa.tenant()) AND id = $1
"""
READ_LOCKED = READ + "FOR UPDATE"


async def find_key(database: Database, key_id: str) -> StoredKey | None:
    """The key of this id, whosever it is: the credential gives the tenant. The platform's database is asked first, then that of a tenant's
    own whose mark the id has; what that one says of other tenants is not believed."""
    rows = await database.system(FIND, key_id)
    for own in database.own:
        if not rows and key_id.startswith(mark_of(own.name)):
            rows = [row for row in await own.system(FIND, key_id) if database.of(row["tenant_id"]) is own]
    if not rows:
        return None
    database.expect(rows[0]["tenant_id"], rows[0]["database"])
    bindings = msgspec.json.decode(rows[0]["bindings"] or "[]", type=tuple[RoleBinding, ...])
    return msgspec.convert({**rows[0], "bindings": bindings}, StoredKey)


async def find_issuers(database: Database, issuer: str) -> list[StoredIssuer]:
    """What tenants say of an issuer: the token gives the tenant."""
    rows = await database.system(FIND_ISSUERS, issuer)
    return [
        StoredIssuer(
            row["tenant_id"],
            row["tenant"],
            row["rated"],
            msgspec.json.decode(row["entry"], type=Issuer),
            msgspec.json.decode(row["role_bindings"], type=tuple[RoleBinding, ...]),
            row["database"],
        )
        for row in rows
    ]


async def replace_issuers(connection: Connection, tenant_id: UUID, issuers: Sequence[Issuer]) -> Issuer | None:
    """Make these the issuers of the connection's tenant; the first one that belongs to another tenant already, if any does."""
    await connection.execute("DELETE FROM hansa.issuers WHERE tenant_id = (SELECT hansa.tenant())")
    for each in issuers:
        done = await connection.execute(
            "INSERT INTO hansa.issuers (tenant_id, issuer, audience, entry) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            tenant_id,
            each.issuer,
            each.audience,
            msgspec.json.encode(each).decode(),
        )
        if done == "INSERT 0 0":
            return each
    return None


async def key_used(database: Database, key: StoredKey) -> None:
    """Keep that a key was used just now."""
    await database.of(key.tenant_id).system("UPDATE hansa.api_keys SET used_at = now() WHERE id = $1", key.id)


async def insert_key(connection: Connection, tenant_id: UUID, key_id: str, *, digest: bytes, grant: Grant) -> str:
    """Store a new key; how people see it, as JSON text."""
    return await connection.fetchval(
        "INSERT INTO hansa.api_keys (tenant_id, id, digest, name, roles, scopes, made_by, expires_at, service_account, predecessor) "
        f"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING {VIEW}",
        tenant_id,
        key_id,
        digest,
        grant.name,
        grant.roles,
        grant.scopes,
        grant.made_by,
        grant.expires_at,
        grant.service_account,
        grant.predecessor,
    )


async def predecessors(connection: Connection, key_id: str) -> list[str]:
    """The keys of the connection's tenant that were rotated, one into the next, into this one."""
    rows = await connection.fetch(
        "WITH RECURSIVE line AS (SELECT $1::text AS id UNION SELECT k.predecessor FROM line JOIN hansa.api_keys k USING (id) "
        "WHERE k.tenant_id = (SELECT hansa.tenant()) AND k.predecessor IS NOT NULL) SELECT id FROM line WHERE id <> $1",
        key_id,
    )
    return [row["id"] for row in rows]


async def insert_account(connection: Connection, principal: Principal, *, name: str, description: str, roles: Sequence[str]) -> str | None:
    """Store a new service account of the connection's tenant; as JSON text, or None when there is one of this name."""
    return await connection.fetchval(
        "INSERT INTO hansa.service_accounts (tenant_id, name, description, roles, made_by) VALUES ($1, $2, $3, $4, $5) "
        f"ON CONFLICT DO NOTHING RETURNING {ACCOUNT}",
        principal.tenant_id,
        name,
        description,
        roles,
        principal.name,
    )


async def delete_account(connection: Connection, name: str) -> bool:
    """Delete a service account of the connection's tenant and its keys; false: there is none."""
    done = await connection.execute("DELETE FROM hansa.service_accounts WHERE tenant_id = (SELECT hansa.tenant()) AND name = $1", name)
    return done != "DELETE 0"


async def find_account(connection: Connection, name: str) -> StoredAccount | None:
    """A service account of the connection's tenant."""
    row = await connection.fetchrow(
        f"SELECT name, roles, {ACCOUNT} AS body FROM hansa.service_accounts WHERE tenant_id = (SELECT hansa.tenant()) AND name = $1", name
    )
    return None if row is None else StoredAccount(row["name"], tuple(row["roles"]), await role_bindings(connection), row["body"])


async def page_accounts(connection: Connection, after: str, limit: int) -> list[asyncpg.Record]:
    """Service accounts of the connection's tenant by name: records (name, body as JSON text)."""
    return await connection.fetch(
        f"SELECT name, {ACCOUNT} AS body FROM hansa.service_accounts WHERE tenant_id = (SELECT hansa.tenant()) AND name > $1 "
        "ORDER BY name LIMIT $2",
        after,
        limit,
    )


async def role_bindings(connection: Connection) -> tuple[RoleBinding, ...]:
    """The role bindings of the connection's tenant."""
    text = await connection.fetchval("SELECT role_bindings FROM hansa.tenants WHERE tenant_id = (SELECT hansa.tenant())")
    return msgspec.json.decode(text or "[]", type=tuple[RoleBinding, ...])


async def page_keys(connection: Connection, after: tuple[str, str], limit: int) -> list[asyncpg.Record]:
    """Keys of the connection's tenant by name and id: records (name, id, body as JSON text)."""
    return await connection.fetch(
        f"SELECT name, id, {VIEW} AS body FROM hansa.api_keys WHERE tenant_id = (SELECT hansa.tenant()) "
        "AND (name, id) > ($1, $2) ORDER BY name, id LIMIT $3",
        *after,
        limit,
    )


async def read_key(connection: Connection, key_id: str, *, lock: bool = False) -> asyncpg.Record | None:
    """A key of the connection's tenant: record (name, roles, scopes, expires_at, dead, body as JSON text)."""
    return await connection.fetchrow(READ_LOCKED if lock else READ, key_id)


async def expire_key(connection: Connection, key_id: str, at: datetime) -> None:
    """Let a key end at a time, unless it ends before."""
    await connection.execute(
        "UPDATE hansa.api_keys SET expires_at = least(expires_at, $2) WHERE tenant_id = (SELECT hansa.tenant()) AND id = $1", key_id, at
    )


async def revoke_key(connection: Connection, key_id: str) -> bool:
    """Revoke a key for good; false: there is none of this id."""
    done = await connection.execute(
        "UPDATE hansa.api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE tenant_id = (SELECT hansa.tenant()) AND id = $1", key_id
    )
    return done != "UPDATE 0"


async def admit_key(connection: Connection, tenant_id: UUID, key_id: str, *, digest: bytes, grant: Grant) -> bool:
    """Store a key that somebody else has made; false when there is or was one of its id, for what was revoked stays so."""
    return bool(
        await connection.fetchval(
            "INSERT INTO hansa.api_keys (tenant_id, id, digest, name, roles, scopes, made_by) VALUES ($1, $2, $3, $4, $5, $6, $7) "
            "ON CONFLICT DO NOTHING RETURNING true",
            tenant_id,
            key_id,
            digest,
            grant.name,
            grant.roles,
            grant.scopes,
            grant.made_by,
        )
    )


async def revoke_keys(connection: Connection, name: str) -> None:
    """Revoke every live key of this name."""
    await connection.execute("UPDATE hansa.api_keys SET revoked_at = now() WHERE name = $1 AND revoked_at IS NULL", name)


async def revoke_all(connection: Connection) -> None:
    """Revoke every live key of the connection's tenant."""
    await connection.execute(
        "UPDATE hansa.api_keys SET revoked_at = now() WHERE tenant_id = (SELECT hansa.tenant()) AND revoked_at IS NULL"
    )


async def lock_idempotency(connection: Connection, scope: str) -> bool:
    """Take the right to use an idempotency key for this transaction; false when another request holds it."""
    return bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))", scope))


async def find_answer(connection: Connection, principal: str, route: str, key: str) -> asyncpg.Record | None:
    """The first answer given under an idempotency key: digest, status, answer, created_at."""
    return await connection.fetchrow(
        "SELECT digest, status, answer, created_at FROM hansa.idempotency_keys WHERE tenant_id = (SELECT hansa.tenant()) "
        "AND principal = $1 AND route = $2 AND key = $3",
        principal,
        route,
        key,
    )


async def keep_answer(connection: Connection, scope: tuple[UUID, str, str, str], digest: bytes, *, status: int, answer: str) -> None:
    """Keep an answer for 24 h under (tenant, principal, route, key)."""
    await connection.execute(
        "INSERT INTO hansa.idempotency_keys (tenant_id, principal, route, key, digest, status, answer) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        *scope,
        digest,
        status,
        answer,
    )


async def sweep(database: Database) -> None:
    """Delete answers older than 24 h; the policy lets the system see no others."""
    await database.system("DELETE FROM hansa.idempotency_keys WHERE created_at < now() - interval '24 hours'")


def first_use(when: datetime) -> str:
    """The time of first use as error texts say it."""
    return when.isoformat(timespec="seconds")


async def find_digest(connection: Connection, key_id: str) -> bytes | None:
    """The digest of a live key of the connection's tenant."""
    return await connection.fetchval("SELECT digest FROM hansa.api_keys WHERE id = $1 AND revoked_at IS NULL", key_id)
