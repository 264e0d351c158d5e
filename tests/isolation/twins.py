"""Two databases with the same rows of one tenant, of which only the first has another tenant's rows too. Whatever the app's role asks as
the first tenant must be answered alike by both: a row, a count, an order or an error that differs is a leak.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import msgspec

from db.rows import A, B, fill
from db.scratch import Scratch, open_scratch
from isolation.statements import Author, Table
from stack import Stack

STRANGERS = (str(B), "secret of b")
"""What is in the other tenant's rows and in none of the first one's."""
COLUMNS = """
SELECT c.oid::regclass::text AS name, array_agg(quote_ident(a.attname) ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'hansa'::regnamespace AND c.relkind IN ('r', 'p') AND has_table_privilege('hansa_app', c.oid, 'SELECT')
GROUP BY c.oid ORDER BY 1
"""
Answer = tuple[str, ...]


class Probed(msgspec.Struct):
    """What came of the statements: how many were answered with rows, with none, with an error, and each that told of the other tenant."""

    seen: int = 0
    empty: int = 0
    refused: int = 0
    leaks: list[str] = msgspec.field(default_factory=list[str])

    @property
    def statements(self) -> int:
        return self.seen + self.empty + self.refused + len(self.leaks)


class Twins:
    """Use `open_twins`."""

    def __init__(self, full: Scratch, apps: list[asyncpg.Connection], tables: list[Table]) -> None:
        self.full = full
        self._apps = apps
        self._tables = tables

    async def probe(self, seeds: Iterable[int], *, each: int = 100) -> Probed:
        """Ask both `each` statements of every seed, up to the end of the first one that finds a leak."""
        probed = Probed()
        for seed in seeds:
            author = Author(self._tables, STRANGERS, seed)
            for number in range(each):
                sql = author.statement()
                full, lone = [await _ask(app, sql) for app in self._apps]
                if full != lone:
                    probed.leaks.append(f"seed {seed}, statement {number}: {sql}\n  with the other tenant: {full}\n  without it: {lone}")
                elif full[:1] == ("error",):
                    probed.refused += 1
                elif full:
                    probed.seen += 1
                else:
                    probed.empty += 1
            if probed.leaks:
                break
        return probed


async def _ask(app: asyncpg.Connection, sql: str) -> Answer:
    """The rows as texts, or the error; whatever was written is undone."""
    transaction = app.transaction()
    await transaction.start()
    try:
        return tuple(str(tuple(row.values())) for row in await app.fetch(sql))
    except asyncpg.PostgresError as error:
        return ("error", str(error.sqlstate), str(error))
    finally:
        await transaction.rollback()


@asynccontextmanager
async def open_twins(stack: Stack, folder: Path) -> AsyncIterator[Twins]:
    """Make both. The first one is there to be spoiled."""
    async with AsyncExitStack() as opened:
        full = await opened.enter_async_context(open_scratch(stack, folder))
        await full.add_tenant(A, "a")
        await full.add_tenant(B, "b")
        for tenant in (A, B):
            await fill(full.owner, tenant, word="own" if tenant == A else "secret of b")
        lone = await opened.enter_async_context(open_scratch(stack, folder, like=full))
        await lone.execute("SET session_replication_role = replica")  # in any order, whatever refers to what
        for row in await lone.fetch(COLUMNS):
            if "tenant_id" in row["columns"]:
                await lone.execute(f"DELETE FROM {row['name']} WHERE tenant_id = $1", B)
        tables = [Table(row["name"], tuple(row["columns"])) for row in await full.fetch(COLUMNS)]
        apps: list[asyncpg.Connection] = []
        for scratch in (full, lone):
            apps.append(await _app(scratch, A))
            opened.push_async_callback(apps[-1].close)
        yield Twins(full, apps, tables)


async def _app(scratch: Scratch, tenant: UUID) -> asyncpg.Connection:
    """The app's role, as the tenant for all of its session."""
    settings: dict[str, Any] = {"hansa.tenant": str(tenant), "timezone": "UTC"}
    assert urlsplit(scratch.settings.database.app_url).username == "hansa_app"
    return await asyncpg.connect(scratch.settings.database.app_url, server_settings=settings, statement_cache_size=0)
