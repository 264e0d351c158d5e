"""Alembic, driven from here: no alembic.ini, no command line. Runs as the owner, one migrator at a time.

Migrations are SQL files beside their revision, so that they read like what they do; functions and views come after all of them, in the
same transaction (`hansa.db.defining`).
"""

from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any

import asyncpg
from alembic import command, op
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from hansa.db.defining import Definitions, bring, read
from hansa.db.pool import AWAY
from hansa.db.revision import HEAD
from hansa.errors import Misconfigured, Unavailable

TRIES = 5
"""As often it is begun again when it would have waited for ever."""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "hansa.db:migrations")
    config.set_main_option("path_separator", "os")
    return config


def run_script(name: str) -> None:
    """Execute one SQL file of `versions/`, within the migration's transaction."""
    script = resources.files("hansa.db.migrations.versions").joinpath(name).read_text()

    async def execute(connection: Any) -> None:
        await connection.execute(script)

    _by_driver(op.get_bind(), execute)


def _by_driver(connection: Connection, what: Callable[[Any], Awaitable[None]]) -> None:
    """Do it over asyncpg's own connection, in the same transaction: many statements at once, which SQLAlchemy does not do by itself."""
    driver: Any = connection.connection.dbapi_connection
    driver.run_async(what)


async def migrate(url: str, definitions: Definitions | None = None) -> str:
    """Bring the schema to `head`, with its functions and views (None: those of this code), and return that revision. Raises `Misconfigured`
    when the database is newer than this code, `Unavailable` when it goes away meanwhile: all is done then, or nothing."""
    wanted = definitions or read()
    # Connected by the driver itself, as everywhere: SQLAlchemy would not know what the URL says of TLS.
    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url), poolclass=NullPool)
    try:
        for left in reversed(range(TRIES)):
            if await _tried(engine, wanted, last=not left):
                break
    finally:
        await engine.dispose()
    return HEAD


async def _tried(engine: AsyncEngine, wanted: Definitions, *, last: bool) -> bool:
    """Whether all is done; else nothing is, because a process that serves meanwhile and we each held what the other one wanted."""
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade, wanted)
    except (DBAPIError, *AWAY) as error:
        reason = error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig is not None else error
        if isinstance(reason, asyncpg.DeadlockDetectedError) and not last:
            return False
        if not isinstance(reason, AWAY):
            raise
        raise Unavailable(f"PostgreSQL went away during the migration ({type(reason).__name__})", hint="Migrate again.") from error
    return True


def _upgrade(connection: Connection, definitions: Definitions) -> None:
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
    _by_driver(connection, lambda driver: bring(driver, definitions))
