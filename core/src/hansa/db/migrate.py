"""Alembic, driven from here: no alembic.ini, no command line. Runs as the owner, one migrator at a time.

Migrations are SQL files beside their revision, so that they read like what they do.
"""

from importlib import resources
from typing import Any

import asyncpg
from alembic import command, op
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from hansa.db.revision import HEAD
from hansa.errors import Misconfigured


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "hansa.db:migrations")
    config.set_main_option("path_separator", "os")
    return config


def run_script(name: str) -> None:
    """Execute one SQL file of `versions/`, within the migration's transaction."""
    script = resources.files("hansa.db.migrations.versions").joinpath(name).read_text()
    # Many statements at once: asyncpg's simple protocol, which SQLAlchemy does not use by itself.
    driver: Any = op.get_bind().connection.dbapi_connection

    async def execute(connection: Any) -> None:
        await connection.execute(script)

    driver.run_async(execute)


async def migrate(url: str) -> str:
    """Bring the schema to `head` and return that revision. Raises `Misconfigured` when the database is newer than this code."""
    # Connected by the driver itself, as everywhere: SQLAlchemy would not know what the URL says of TLS.
    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()
    return HEAD


def _upgrade(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('hansa.migrate', 0))"))
    connection.execute(text("SET LOCAL ROLE hansa_owner"))
    config = _config()
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    has_table = connection.execute(text("SELECT to_regclass('hansa.alembic_version') IS NOT NULL")).scalar_one()
    current = connection.execute(text("SELECT version_num FROM hansa.alembic_version")).scalar_one_or_none() if has_table else None
    if current is not None and current not in known:
        raise Misconfigured(
            f"the database is at revision {current}, which this version of Hansa does not know (newest known: {HEAD})",
            hint="Run the newer version of Hansa that made it, or restore a backup from before.",
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
