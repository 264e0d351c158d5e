"""A database of one's own in the session's PostgreSQL: migrated, and dropped at the end. For tests that break what is in it."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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

TEMPLATE, KEY = "scratch_template", "api-key"


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
async def open_scratch(stack: Stack, folder: Path, *, migrated: bool = True, like: Scratch | None = None) -> AsyncIterator[Scratch]:
    """A fresh database, or a copy of another scratch. The roles, and the first key if it is `migrated`, are those of the whole server."""
    name = f"scratch_{uuid4().hex}"
    settings = _moved(stack.settings, name, folder)
    if like is not None:
        await like.owner.close()
        await _copy(stack, name, _name(like.settings))
        await like.reconnect()
    elif migrated:
        key = await _migrated(stack)
        await _copy(stack, name, TEMPLATE)
        shutil.copy(key, settings.key.file)
    else:
        await _admin(stack, f"CREATE DATABASE {name}")
    try:
        scratch = Scratch(settings, await asyncpg.connect(settings.database.url))
        try:
            yield scratch
        finally:
            await scratch.owner.close()
    finally:
        await _admin(stack, f"DROP DATABASE {name} WITH (FORCE)")


async def _migrated(stack: Stack) -> Path:
    """Make the database that migrated ones are copied from, once a server: a copy takes a third of the time of another migration.
    The file with its first key."""
    folder = stack.folder / TEMPLATE
    if not folder.is_dir():
        part = folder.with_suffix(".part")
        part.mkdir(exist_ok=True)
        await _admin(stack, f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)")
        await _admin(stack, f"CREATE DATABASE {TEMPLATE}")
        await migrate(_moved(stack.settings, TEMPLATE, part))
        part.rename(folder)
    return folder / KEY


def _name(settings: Settings) -> str:
    return urlsplit(settings.database.url).path[1:]


async def _copy(stack: Stack, name: str, source: str) -> None:
    await _admin(stack, f"CREATE DATABASE {name} TEMPLATE {source}")


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
    return msgspec.structs.replace(settings, database=moved, key=msgspec.structs.replace(settings.key, file=str(folder / KEY)))
