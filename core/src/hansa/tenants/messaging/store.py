"""All SQL about tenants' NATS accounts. How they shall be belongs to their tenant; whether NATS knows it, to the system."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from hansa.db.pool import Connection, Database
from hansa.tenants.messaging.model import Known, Sender, Told
from hansa_crds import TenantSpec

COLUMNS = (
    "tenant_id, version, connections, subscriptions, payload_bytes, blocked, revoked_before, account, told, digest, reason, revoked_users"
)
ALL = f"SELECT {COLUMNS} FROM hansa.messaging_accounts ORDER BY tenant_id"
PAGE = f"SELECT {COLUMNS} FROM hansa.messaging_accounts WHERE tenant_id > $1 ORDER BY tenant_id LIMIT $2"
PAIR = """
SELECT tenant_id FROM (
  (SELECT m.tenant_id, 1 AS turn FROM hansa.messaging_accounts m
    WHERE m.told IS NOT NULL AND NOT m.blocked AND m.connections > 0 AND m.tenant_id > $1 ORDER BY m.tenant_id LIMIT 2)
  UNION ALL (SELECT m.tenant_id, 2 FROM hansa.messaging_accounts m
    WHERE m.told IS NOT NULL AND NOT m.blocked AND m.connections > 0 AND m.tenant_id <= $1 ORDER BY m.tenant_id LIMIT 2)) p
ORDER BY turn, tenant_id LIMIT 2
"""
ONE = f"SELECT {COLUMNS} FROM hansa.messaging_accounts WHERE tenant_id = $1"
MISSING = """
INSERT INTO hansa.messaging_accounts (tenant_id, blocked)
SELECT t.tenant_id, t.suspended FROM hansa.tenants t
WHERE t.state <> 'deleting' AND NOT EXISTS (SELECT FROM hansa.messaging_accounts m WHERE m.tenant_id = t.tenant_id) ON CONFLICT DO NOTHING
"""
LOOKED = """
INSERT INTO hansa.messaging_looks AS l (region, holes, found_at)
VALUES ($1, $2, CASE WHEN $2 = '' THEN '-infinity' ELSE clock_timestamp() END)
ON CONFLICT (region) DO UPDATE SET looked_at = clock_timestamp(), found_at = greatest(l.found_at, excluded.found_at),
  holes = CASE WHEN excluded.holes = '' AND l.found_at > clock_timestamp() - interval '1 minute' THEN l.holes ELSE excluded.holes END
"""
HOLES_CHARACTERS = 2_000
TELL = """
UPDATE hansa.messaging_accounts m SET account = t.account, told = t.word, digest = t.digest, reason = ''
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[]) AS t(tenant_id, account, word, digest) WHERE m.tenant_id = t.tenant_id
"""
SENDER = """
SELECT m.tenant_id, t.name AS tenant, t.requests_per_second IS NOT NULL AS rated, t.database
FROM hansa.messaging_accounts m JOIN hansa.tenants t USING (tenant_id) WHERE m.account = $1
"""


async def set_account(connection: Connection, tenant_id: UUID, spec: TenantSpec) -> None:
    """How the tenant's account shall be from the end of the transaction on."""
    bounds = spec.quotas.messaging
    await connection.execute(
        "SELECT hansa.messaging_set($1, $2, $3, $4, $5)",
        tenant_id,
        bounds.connections,
        bounds.subscriptions,
        bounds.payload_bytes,
        spec.suspend,
    )


async def block(connection: Connection, *, blocked: bool) -> None:
    """Let nobody in by the account of the connection's tenant any more, or let them in again."""
    await connection.execute(
        "SELECT hansa.messaging_set(tenant_id, connections, subscriptions, payload_bytes, $1) FROM hansa.messaging_accounts "
        "WHERE tenant_id = (SELECT hansa.tenant())",
        blocked,
    )


async def revoke(connection: Connection, tenant_id: UUID) -> None:
    """Turn away every user of the tenant's account that was made until now."""
    await connection.execute("SELECT hansa.messaging_revoke($1)", tenant_id)


async def revoke_user(connection: Connection, tenant_id: UUID, user: str, *, seconds: int, most: int) -> bool:
    """Turn away one user of the tenant's account, whose credentials last so many seconds at most; false: `most` are turned away already."""
    return await connection.fetchval("SELECT hansa.messaging_revoke_user($1, $2, $3, $4)", tenant_id, user, seconds, most)


async def add_missing(database: Database) -> None:
    """Every tenant shall have an account, also those that were there before accounts were; but for those that are on their way out."""
    await database.system(MISSING)


async def every(database: Database) -> list[Known]:
    """All accounts."""
    return [_known(row) for row in await database.system(ALL)]


async def page(database: Database, after: UUID, limit: int) -> list[Known]:
    """Accounts by their tenant's id."""
    return [_known(row) for row in await database.system(PAGE, after, limit)]


async def pair(database: Database, after: UUID) -> list[UUID]:
    """Two tenants whose accounts let somebody in, the next ones after a tenant, all in turns; fewer where there are no two."""
    return [row["tenant_id"] for row in await database.system(PAIR, after)]


async def one(database: Database, tenant_id: UUID) -> Known | None:
    """The account of any tenant."""
    rows = await database.system(ONE, tenant_id)
    return _known(rows[0]) if rows else None


def _known(row: Any) -> Known:
    return msgspec.convert({**dict(row), "revoked_users": msgspec.json.decode(row["revoked_users"])}, Known)


async def tell(database: Database, told: Sequence[Told]) -> None:
    """NATS was told of accounts."""
    columns = [[getattr(each, name) for each in told] for name in Told.__struct_fields__]
    await database.system(TELL, *columns)


async def fail(database: Database, tenant_id: UUID, reason: str) -> None:
    """NATS could not be told."""
    await database.system("UPDATE hansa.messaging_accounts SET told = NULL, reason = $2 WHERE tenant_id = $1", tenant_id, reason)


async def looked(database: Database, region: str, holes: Sequence[str]) -> None:
    """NATS was looked through. What was found stands for a minute, also when somebody else has mended it by then."""
    await database.system(LOOKED, region, "; ".join(holes)[:HOLES_CHARACTERS])


async def holes(database: Database, region: str) -> list[str]:
    """What the looks of the last minute found; nothing when none was taken, as without accounts."""
    rows = await database.system("SELECT holes FROM hansa.messaging_looks WHERE region = $1 AND holes <> ''", region)
    return [row["holes"] for row in rows]


async def sender(database: Database, account: str) -> Sender | None:
    """Whose account this is."""
    rows = await database.system(SENDER, account)
    if not rows:
        return None
    database.expect(rows[0]["tenant_id"], rows[0]["database"])
    return msgspec.convert(dict(rows[0]), Sender)
