"""Secrets over the session's PostgreSQL, in this process: as many "processes" over one database as a test wants, and keys in a file."""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import msgspec

from hansa.auth.model import Principal
from hansa.db.pool import Database, enter_tenant, open_database, open_owner
from hansa.plugins import loader
from hansa.secrets.keyring import open_keyring
from hansa.secrets.redaction import Redactor
from hansa.settings import PluginSettings, Settings
from hansa.tenants import store as tenant_store
from hansa.tenants.secrets.rotation import Rotation
from hansa.tenants.secrets.service import TenantSecrets
from hansa.tenants.service import tenant_id
from hansa_sdk import SecretServices

PLUGINS = loader.load(PluginSettings())


class Safe:
    """What one process has of secrets. Use `open_safe`."""

    def __init__(self, database: Database, secrets: TenantSecrets, redactor: Redactor) -> None:
        self.database = database
        self.secrets = secrets
        self.redactor = redactor
        self.rotation = Rotation(database, secrets.keys, secrets.keyring)

    def rotating(self, batch: int) -> Rotation:
        """A rotation that changes so many rows in one transaction."""
        return Rotation(self.database, self.secrets.keys, self.secrets.keyring, batch=batch)

    async def put(self, who: Principal, name: str, value: str, hosts: Sequence[str] | None = None) -> dict[str, Any]:
        """Set a secret as the API does."""
        await self.secrets.prepare(who.tenant_id)
        async with self.database.tenant(who.tenant_id) as connection:
            return msgspec.json.decode(await self.secrets.put(connection, who, name=name, value=value, hosts=hosts))

    async def refer(self, who: Principal, name: str, source: str, path: str) -> dict[str, Any]:
        """Set a secret that another system keeps."""
        async with self.database.tenant(who.tenant_id) as connection:
            return msgspec.json.decode(await self.secrets.refer(connection, who, name=name, place=(source, path)))


@asynccontextmanager
async def open_safe(
    settings: Settings, *, kek: str = "file", http: httpx2.AsyncClient | None = None, **options: str
) -> AsyncIterator[Safe]:
    """A process with these HANSA_SECRETS_* settings, lower case and without the prefix."""
    redactor = Redactor()
    async with (
        open_database(settings.database) as database,
        http or httpx2.AsyncClient(verify=False, trust_env=False) as client,
        open_keyring(PLUGINS.key_providers, PLUGINS.secret_sources, services=SecretServices(client, options), current=kek) as keyring,
    ):
        yield Safe(database, TenantSecrets(database, keyring, redactor), redactor)


async def new_tenant(settings: Settings) -> Principal:
    """Someone who may do everything in a tenant of their own."""
    name = f"safe-{secrets.token_hex(6)}"
    async with open_owner(settings.database) as connection:
        await tenant_store.ensure_tenant(connection, tenant_id(name), name)
    return Principal(tenant_id(name), name, f"key:{name}", ("tenant-admin",))


def key_file(folder: Path, *lines: str) -> Path:
    """A file of key-encryption keys."""
    path = folder / "keys"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


async def as_owner(settings: Settings, who: UUID, sql: str, *arguments: Any) -> list[Any]:
    """Rows of one statement by the owner of the database in a tenant: who could write there, and what they would see."""
    async with open_owner(settings.database) as connection:
        await enter_tenant(connection, who)
        return await connection.fetch(sql, *arguments)
