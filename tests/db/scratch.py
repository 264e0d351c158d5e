"""A database of one's own in the session's PostgreSQL: migrated, and dropped at the end. For tests that break what is in it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import msgspec

from hansa.db.pool import patiently
from hansa.migration import migrate
from hansa.settings import Settings
from stack import Stack


class Scratch:
    """The database by its settings, and a superuser's way in. Use `open_scratch`."""

    def __init__(self, settings: Settings, owner: asyncpg.Connection) -> None:
        self.settings = settings
        self.owner = owner
        self.key_file = Path(settings.key.file)

    async def execute(self, sql: str, *arguments: Any) -> None:
        await self.owner.execute(sql, *arguments)

    async def fetch(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in await self.owner.fetch(sql, *arguments)]

    async def reconnect(self) -> None:
        """Log in again, after the server was away."""
        self.owner = await patiently(lambda: asyncpg.connect(self.settings.database.url), 20)

    async def add_tenant(self, tenant: UUID, name: str) -> None:
        await self.execute("INSERT INTO hansa.tenants (tenant_id, name) VALUES ($1, $2)", tenant, name)

    def with_url(self, **urls: str) -> Settings:
        """The settings with other database URLs."""
        return msgspec.structs.replace(self.settings, database=msgspec.structs.replace(self.settings.database, **urls))


@asynccontextmanager
async def open_scratch(
    stack: Stack, folder: Path, *, migrated: bool = True, like: Scratch | None = None, template: Settings | None = None
) -> AsyncIterator[Scratch]:
    """A fresh database, or a copy of one: of another scratch, or of a template. The roles are those of the whole server."""
    name = f"scratch_{uuid4().hex}"
    if like is not None:
        await like.owner.close()
        await _copy(stack, name, like.settings)
        await like.reconnect()
    elif template is not None:
        await _copy(stack, name, template)
    else:
        await _admin(stack, f"CREATE DATABASE {name}")
    try:
        settings = _moved(stack.settings, name, folder)
        if migrated and like is None and template is None:
            await migrate(settings)
        scratch = Scratch(settings, await asyncpg.connect(settings.database.url))
        try:
            yield scratch
        finally:
            await scratch.owner.close()
    finally:
        await _admin(stack, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def migrated_template(stack: Stack, folder: Path) -> Iterator[Settings]:
    """A migrated database that nobody uses, to be copied: far quicker than to migrate another one."""
    settings = _moved(stack.settings, f"template_{uuid4().hex}", folder)
    name = urlsplit(settings.database.url).path[1:]
    asyncio.run(_admin(stack, f"CREATE DATABASE {name}"))
    try:
        asyncio.run(_migrated(settings))
        yield settings
    finally:
        asyncio.run(_admin(stack, f"DROP DATABASE {name} WITH (FORCE)"))


async def _migrated(settings: Settings) -> None:
    await migrate(settings)


async def _copy(stack: Stack, name: str, source: Settings) -> None:
    await _admin(stack, f"CREATE DATABASE {name} TEMPLATE {urlsplit(source.database.url).path[1:]}")


async def _admin(stack: Stack, sql: str) -> None:
    admin = await asyncpg.connect(stack.admin_url)
    try:
        await admin.execute(sql)
    finally:
        await admin.close()


def _moved(settings: Settings, name: str, folder: Path) -> Settings:
    def move(url: str) -> str:
        return urlsplit(url)._replace(path=f"/{name}").geturl()

    database = settings.database
    moved = msgspec.structs.replace(database, url=move(database.url), app_url=move(database.app_url), system_url=move(database.system_url))
    return msgspec.structs.replace(settings, database=moved, key=msgspec.structs.replace(settings.key, file=str(folder / "api-key")))
