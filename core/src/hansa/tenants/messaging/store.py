"""All SQL about tenants' NATS accounts. How they shall be belongs to their tenant; whether NATS knows it, to the system."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from hansa.db.pool import Connection, Database
from hansa.tenants.messaging.model import Known, Sender
from hansa_crds import TenantSpec

COLUMNS = "tenant_id, version, connections, subscriptions, payload_bytes, blocked, revoked_before, account, told, digest, reason"
ALL = f"SELECT {COLUMNS} FROM hansa.messaging_accounts ORDER BY tenant_id"
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


async def add_missing(database: Database) -> None:
    """Every tenant shall have an account, also those that were there before accounts were; but for those that are on their way out."""
    await database.system(MISSING)


async def every(database: Database) -> list[Known]:
    """All accounts."""
    return msgspec.convert([dict(row) for row in await database.system(ALL)], list[Known])


async def one(database: Database, tenant_id: UUID) -> Known | None:
    """The account of any tenant."""
    rows = await database.system(ONE, tenant_id)
    return msgspec.convert(dict(rows[0]), Known) if rows else None


async def tell(database: Database, tenant_id: UUID, *, account: str, told: str, digest: bytes) -> None:
    """NATS was told of an account, by this public key."""
    sql = "UPDATE hansa.messaging_accounts SET account = $2, told = $3, digest = $4, reason = '' WHERE tenant_id = $1"
    await database.system(sql, tenant_id, account, told, digest)


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
