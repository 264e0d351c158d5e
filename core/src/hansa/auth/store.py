"""All SQL about API keys and idempotency keys."""

from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from hansa.auth.model import StoredKey
from hansa.db.pool import Connection, Database

FIND = """
SELECT k.tenant_id, t.name AS tenant, k.id, k.digest, k.roles, k.expires_at, k.revoked_at
FROM hansa.api_keys k JOIN hansa.tenants t USING (tenant_id) WHERE k.id = $1
"""


async def find_key(database: Database, key_id: str) -> StoredKey | None:
    """The key of this id, whosever it is: the credential gives the tenant."""
    rows = await database.system(FIND, key_id)
    return msgspec.convert(dict(rows[0]), StoredKey) if rows else None


async def insert_key(connection: Connection, tenant_id: UUID, key_id: str, *, name: str, digest: bytes, roles: list[str]) -> None:
    """Store a new key."""
    await connection.execute(
        "INSERT INTO hansa.api_keys (tenant_id, id, name, digest, roles) VALUES ($1, $2, $3, $4, $5)",
        tenant_id,
        key_id,
        name,
        digest,
        roles,
    )


async def revoke_keys(connection: Connection, name: str) -> None:
    """Revoke every live key of this name."""
    await connection.execute("UPDATE hansa.api_keys SET revoked_at = now() WHERE name = $1 AND revoked_at IS NULL", name)


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
