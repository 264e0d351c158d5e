"""All SQL about tenants' NATS accounts. How they shall be belongs to their tenant; whether NATS knows it, to the system."""

from uuid import UUID

import msgspec

from hansa.db.pool import Connection, Database
from hansa.tenants.messaging.model import Known, Sender
from hansa_crds import TenantSpec

COLUMNS = "tenant_id, version, connections, subscriptions, payload_bytes, blocked, revoked_before, account, told, reason"
OF_TENANT = f"SELECT {COLUMNS} FROM hansa.messaging_accounts WHERE tenant_id = (SELECT hansa.tenant())"
ALL = f"SELECT {COLUMNS} FROM hansa.messaging_accounts ORDER BY tenant_id"
ONE = f"SELECT {COLUMNS} FROM hansa.messaging_accounts WHERE tenant_id = $1"
MISSING = """
INSERT INTO hansa.messaging_accounts (tenant_id, blocked)
SELECT t.tenant_id, t.suspended FROM hansa.tenants t
WHERE NOT EXISTS (SELECT FROM hansa.messaging_accounts m WHERE m.tenant_id = t.tenant_id) ON CONFLICT DO NOTHING
"""
SENDER = """
SELECT m.tenant_id, t.name AS tenant, t.requests_per_second IS NOT NULL AS rated
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


async def revoke(connection: Connection, tenant_id: UUID) -> None:
    """Turn away every user of the tenant's account that was made until now."""
    await connection.execute("SELECT hansa.messaging_revoke($1)", tenant_id)


async def read(connection: Connection) -> Known | None:
    """The account of the connection's tenant."""
    row = await connection.fetchrow(OF_TENANT)
    return msgspec.convert(dict(row), Known) if row else None


async def add_missing(database: Database) -> None:
    """Every tenant shall have an account, also those that were there before accounts were."""
    await database.system(MISSING)


async def every(database: Database) -> list[Known]:
    """All accounts."""
    return msgspec.convert([dict(row) for row in await database.system(ALL)], list[Known])


async def one(database: Database, tenant_id: UUID) -> Known | None:
    """The account of any tenant."""
    rows = await database.system(ONE, tenant_id)
    return msgspec.convert(dict(rows[0]), Known) if rows else None


async def tell(database: Database, tenant_id: UUID, *, account: str, told: str) -> int:
    """NATS was told of an account, by this public key; the version that it shall have by now (0: the tenant is gone)."""
    sql = "UPDATE hansa.messaging_accounts SET account = $2, told = $3, reason = '' WHERE tenant_id = $1 RETURNING version"
    rows = await database.system(sql, tenant_id, account, told)
    return rows[0]["version"] if rows else 0


async def fail(database: Database, tenant_id: UUID, reason: str) -> None:
    """NATS could not be told."""
    await database.system("UPDATE hansa.messaging_accounts SET told = NULL, reason = $2 WHERE tenant_id = $1", tenant_id, reason)


async def sender(database: Database, account: str) -> Sender | None:
    """Whose account this is."""
    rows = await database.system(SENDER, account)
    return msgspec.convert(dict(rows[0]), Sender) if rows else None
