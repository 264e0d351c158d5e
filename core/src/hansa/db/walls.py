"""Tries the walls between tenants from the inside: as the app's role, in every table that has a tenant, whatever parts of Hansa have made.

Everything happens in one transaction that is rolled back: a canary tenant writes a row into each table, and another one, and nobody,
try to read, change, remove and forge them. Nothing of it is ever seen by anyone else. Knows no table by name but that of the tenants:
statements are made from the catalogue, by the database.
"""

from collections.abc import Sequence
from uuid import UUID, uuid4

import asyncpg
import msgspec

from hansa.db.pool import Connection, Database, enter_tenant

TABLES = r"""
WITH RECURSIVE mine AS (
  SELECT c.oid, c.relname::text AS name, c.oid::regclass::text AS quoted FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
  WHERE c.relnamespace = 'hansa'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition),
depth AS (
  SELECT m.oid, 0 AS level FROM mine m
  UNION ALL
  SELECT f.conrelid, d.level + 1
  FROM depth d JOIN pg_constraint f ON f.confrelid = d.oid AND f.contype = 'f' AND f.conrelid <> f.confrelid WHERE d.level < 16),
words AS (
  SELECT k.conrelid, k.conkey[1] AS attnum, min(quote_literal(substring(pg_get_constraintdef(k.oid) FROM 'ARRAY\[''([^'']*)'''))) AS word
  FROM pg_constraint k JOIN mine m ON m.oid = k.conrelid
  WHERE k.contype = 'c' AND cardinality(k.conkey) = 1 AND pg_get_constraintdef(k.oid) LIKE '%ANY (ARRAY[%' GROUP BY 1, 2),
cells AS (
  SELECT m.oid, a.attnum, quote_ident(a.attname) AS name, a.attnotnull AS needed, t.typname = 'text' AS words,
    has_column_privilege(m.oid, a.attnum, 'INSERT') AS put,
    has_column_privilege(m.oid, a.attnum, 'UPDATE') AS change,
    CASE WHEN a.attname = 'tenant_id' THEN '$1::uuid' WHEN w.word IS NOT NULL THEN w.word WHEN t.typname = 'uuid' THEN '$2::uuid'
      WHEN t.typname = 'text' THEN '$3::text' WHEN t.typname = '_text' THEN 'ARRAY[$3::text]' WHEN t.typcategory = 'N' THEN '1'
      WHEN t.typname = 'bool' THEN 'false' WHEN t.typname IN ('json', 'jsonb') THEN $q$'{}'$q$
      WHEN t.typname IN ('timestamptz', 'timestamp', 'date') THEN 'now()' WHEN t.typname = 'interval' THEN $q$'0 seconds'$q$
      WHEN t.typname = 'bytea' THEN $q$decode(repeat('00', 32), 'hex')$q$ WHEN t.typname = 'inet' THEN $q$'127.0.0.1'$q$ END AS value
  FROM mine m JOIN pg_attribute a ON a.attrelid = m.oid AND a.attnum > 0 AND NOT a.attisdropped
    AND a.attidentity = '' AND a.attgenerated = ''
  JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN words w ON w.conrelid = m.oid AND w.attnum = a.attnum)
SELECT m.name, has_table_privilege(m.oid, 'SELECT') AS read,
  ARRAY(SELECT format('WITH given AS (SELECT $1::uuid, $2::uuid, $3::text) INSERT INTO %s (%s) VALUES (%s)', m.quoted,
      string_agg(c.name, ', ' ORDER BY c.attnum), string_agg(c.value, ', ' ORDER BY c.attnum))
    FROM cells c JOIN generate_series(1, 3) AS way ON c.needed OR way = 1 OR (way = 2 AND NOT c.words)
    WHERE c.oid = m.oid AND c.put AND c.value IS NOT NULL GROUP BY way HAVING bool_or(c.name = 'tenant_id') ORDER BY way) AS inserts,
  CASE WHEN has_table_privilege(m.oid, 'DELETE') THEN format('DELETE FROM %s WHERE tenant_id = $1', m.quoted) END AS delete,
  (SELECT format('UPDATE %1$s SET %2$s = %2$s WHERE tenant_id = $1', m.quoted, min(c.name)) FROM cells c
    WHERE c.oid = m.oid AND c.change HAVING count(*) > 0) AS update,
  format('SELECT %L::text AS name WHERE EXISTS (SELECT FROM %s WHERE tenant_id = $1)', m.name, m.quoted) AS look
FROM mine m JOIN depth d ON d.oid = m.oid GROUP BY m.oid, m.name, m.quoted ORDER BY max(d.level), m.name = 'tenants' DESC, m.name
"""
"""Every table with a tenant, those that others refer to first, and what is to be tried in it; NULL where the app may not in any case."""
VIEWS = """
SELECT format('SELECT %L::text AS name WHERE EXISTS (SELECT FROM %s v WHERE v::text LIKE ''%%'' || $1::uuid || ''%%'')',
  c.relname, c.oid::regclass)
FROM pg_class c WHERE c.relnamespace = 'hansa'::regnamespace AND c.relkind IN ('v', 'm') AND has_table_privilege(c.oid, 'SELECT')
"""
VERBS = (
    "SELECT hansa.run_cancel($1::uuid, $2::uuid) IS NULL",
    "SELECT hansa.run_suspend($1::uuid, $2::uuid) IS NULL",
    "SELECT NOT EXISTS (SELECT FROM hansa.session_events($1::uuid, $2::uuid, 0, 10))",
    "SELECT NOT EXISTS (SELECT FROM hansa.run_load($1::uuid, ARRAY[$2::uuid], ARRAY[1]))",
    "SELECT hansa.run_world($1::uuid, $2::uuid::text, 1) IS NULL",
    "SELECT (SELECT outcome FROM hansa.run_resume($1::uuid, $2::uuid, NULL, NULL, 'canary')) = 'no_run'",
    "SELECT hansa.approval_settle($1::uuid, $2::uuid, 'approved', 'canary', NULL, NULL) = 'gone'",
    "SELECT (SELECT outcome FROM hansa.message_accept($1::uuid, $2::uuid)) = 'done'",
)
"""Verbs of the engine, asked as one tenant ($1) for what another has ($2): true, when they find nothing."""


OWN = 'violates check constraint "own"'
"""What is said of a row that a tenant's own database does not take."""


class Table(msgspec.Struct, frozen=True):
    """A table, and the statements that try it. `inserts`: ways to write a row, of which rules of the table may refuse the first ones."""

    name: str
    read: bool
    inserts: tuple[str, ...]
    delete: str | None
    update: str | None
    look: str


class Probed(msgspec.Struct):
    """What came of a probe. `holes`: what got through; `unwritten`: tables of which no row could be made to be reached for, and why."""

    tables: int
    holes: list[str] = msgspec.field(default_factory=list[str])
    unwritten: dict[str, str] = msgspec.field(default_factory=dict[str, str])


class _Undone(Exception):
    """Rolls the probe back."""


async def probe(database: Database) -> Probed:
    """Try every wall. Raises `Unavailable` when the database is away."""
    mine, other = uuid4(), uuid4()
    probed = Probed(0)
    try:
        async with database.tenant(mine) as connection:
            tables = [msgspec.convert(dict(row), Table) for row in await connection.fetch(TABLES)]
            looks = [table.look for table in tables if table.read]
            views = [row[0] for row in await connection.fetch(VIEWS)]
            probed.tables = len(tables)
            canary = Canary(connection, mine, other, probed)
            written = await canary.write(tables)
            unseen = written - await canary.seen(looks)
            probed.holes += [f"hansa.{name}: a tenant does not see its own row; is the policy `tenant` gone?" for name in sorted(unseen)]
            for stranger, who in ((other, "another tenant"), (None, "no tenant")):
                await canary.enter(stranger)
                probed.holes += [f"hansa.{name}: a row is read as {who}" for name in sorted(await canary.seen([*looks, *views]))]
                await canary.meddle(tables, who)
            await canary.enter(other)
            await canary.call_verbs()
            raise _Undone
    except _Undone:
        return probed


async def probe_own(database: Database) -> Probed:
    """Try to bring a row of a stranger into each table of a tenant's own database: none may take one. Raises `Unavailable`."""
    stranger = uuid4()
    probed = Probed(0)
    try:
        async with database.here(stranger) as connection:
            tables = [msgspec.convert(dict(row), Table) for row in await connection.fetch(TABLES)]
            probed.tables = len(tables)
            canary = Canary(connection, stranger, stranger, probed)
            written = await canary.write(tables)
            probed.holes += [f"hansa.{name}: takes a row of another tenant than its own; run `hansa migrate`" for name in sorted(written)]
            probed.unwritten = {name: why for name, why in probed.unwritten.items() if OWN not in why}
            raise _Undone
    except _Undone:
        return probed


class Canary:
    """A tenant that sings in one transaction; `probed` is what came of it."""

    def __init__(self, connection: Connection, mine: UUID, other: UUID, probed: Probed) -> None:
        self._connection = connection
        self._mine = mine
        self._other = other
        self._probed = probed
        self._insert: dict[str, str] = {}
        """The way to write a row of each table that has worked."""

    async def enter(self, tenant: UUID | None) -> None:
        """From here on as this tenant, or as none."""
        if tenant is not None:
            await enter_tenant(self._connection, tenant)
        else:
            await self._connection.execute("SELECT set_config('hansa.tenant', '', true)")

    async def write(self, tables: Sequence[Table]) -> set[str]:
        """A row of its own into every table; the tables that have one."""
        written = set[str]()
        for table in tables:
            for insert in table.inserts:
                error = await self._attempt(insert, self._row(self._mine))
                if error is None:
                    self._insert[table.name] = insert
                    written.add(table.name)
                    break
                self._probed.unwritten[table.name] = str(error)
        self._probed.unwritten = {name: why for name, why in self._probed.unwritten.items() if name not in written}
        return written

    async def seen(self, looks: Sequence[str]) -> set[str]:
        """Where a row of the canary's is seen."""
        return {row["name"] for row in await self._connection.fetch(" UNION ALL ".join(looks), self._mine)}

    async def meddle(self, tables: Sequence[Table], who: str) -> None:
        """Change, remove and forge rows of the canary's as someone else; all must come to nothing."""
        for table in tables:
            for sql, did in ((table.update, "changed"), (table.delete, "removed")):
                if sql and await self._touched(sql):
                    self._probed.holes.append(f"hansa.{table.name}: a row is {did} as {who}")
            if table.name in self._insert:
                error = await self._attempt(self._insert[table.name], self._row(uuid4()))
                if not isinstance(error, asyncpg.InsufficientPrivilegeError):
                    self._probed.holes.append(f"hansa.{table.name}: a row is written for a tenant as {who}")

    async def call_verbs(self) -> None:
        """Ask the engine as someone else for what the canary has."""
        for sql in VERBS:
            savepoint = self._connection.transaction()
            await savepoint.start()
            if not await self._connection.fetchval(sql, self._other, self._mine):
                self._probed.holes.append(f"{sql.partition('hansa.')[2].partition('(')[0]}: finds what another tenant has")
            await savepoint.rollback()
            await self.enter(self._other)

    def _row(self, identity: UUID) -> tuple[UUID, UUID, str]:
        return self._mine, identity, f"canary-{identity}"

    async def _touched(self, sql: str) -> bool:
        """Whether a statement does something to a row of the canary's; undone in any case."""
        savepoint = self._connection.transaction()
        await savepoint.start()
        try:
            return not (await self._connection.execute(sql, self._mine)).endswith(" 0")
        except asyncpg.InsufficientPrivilegeError:
            return False
        finally:
            await savepoint.rollback()

    async def _attempt(self, sql: str, arguments: tuple[UUID, UUID, str]) -> asyncpg.PostgresError | None:
        """Do a statement; the error, after which all is as before."""
        savepoint = self._connection.transaction()
        await savepoint.start()
        try:
            await self._connection.execute(sql, *arguments)
        except asyncpg.PostgresError as error:
            await savepoint.rollback()
            return error
        await savepoint.commit()
        return None
