"""Tenants are kept apart by the database itself, in every table, whatever the app's role asks."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from db.rows import ROWS, A, B, insert
from db.scratch import Scratch, open_scratch
from hansa.db.pool import open_database
from stack import Stack

WITH_TENANT = """
SELECT c.relname AS name, c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
  ARRAY(SELECT pg_get_expr(p.polqual, p.polrelid) || ' / ' || pg_get_expr(p.polwithcheck, p.polrelid) FROM pg_policy p
        WHERE p.polrelid = c.oid AND p.polname = 'tenant' AND p.polcmd = '*' AND p.polpermissive) AS policy
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
WHERE c.relnamespace = 'hansa'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1
"""
SYSTEM_ONLY = ("audit_anchors", "removed_sessions")
"""Tables that the app only reads."""
DEFINERS = {
    "log_partitions_make",
    "log_partition_drop",
    "audit_partitions_make",
    "audit_partition_drop",
    "tenant_purge",
    "tenant_residue",
    "tenant_remove",
}
"""The functions with their owner's rights: only an owner makes and drops tables, and only an owner, under row-level security like all,
removes what a tenant has that is being deleted. None is the app's to call."""


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two_tenants(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scratch]:
    """Tenant B has a row in every table, tenant A in none but its own. One database for all tests here: none leaves anything in it."""
    async with open_scratch(stack, tmp_path_factory.mktemp("tenants")) as scratch:
        await scratch.add_tenant(A, "a")
        await scratch.add_tenant(B, "b")
        for table in ROWS:
            await insert(scratch.owner, table, B)
        yield scratch


@pytest_asyncio.fixture(loop_scope="module")
async def own_tenants(two_tenants: Scratch, stack: Stack, tmp_path: Path) -> AsyncIterator[Scratch]:
    """The same in a database of one's own, for a test that changes it."""
    async with open_scratch(stack, tmp_path, like=two_tenants) as scratch:
        yield scratch


@asynccontextmanager
async def app(scratch: Scratch, tenant: UUID | None) -> AsyncIterator[asyncpg.Connection]:
    """The app's role, in a transaction of a tenant or of none, rolled back at the end."""
    connection = await asyncpg.connect(scratch.settings.database.app_url)
    transaction = connection.transaction()
    await transaction.start()
    try:
        if tenant is not None:
            await connection.execute("SELECT set_config('hansa.tenant', $1, true)", str(tenant))
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


async def test_every_table_with_a_tenant_has_its_forced_policy(two_tenants: Scratch) -> None:
    tables = await two_tenants.fetch(WITH_TENANT)
    partitions = {table["name"] for table in tables if re.fullmatch(r"(audit_)?events_(default|\d{8})", table["name"])}
    assert len(partitions) >= 3
    assert {table["name"] for table in tables} - partitions == {"tenants", *ROWS, *SYSTEM_ONLY}, "a table that this test does not know"
    whole = "(tenant_id = ( SELECT hansa.tenant() AS tenant))"
    assert [table for table in tables if not (table["enabled"] and table["forced"] and table["policy"] == [f"{whole} / {whole}"])] == []


async def test_the_tenant_leads_every_key_and_every_reference(two_tenants: Scratch) -> None:
    rows = await two_tenants.fetch("""
        SELECT c.conname, c.contype::text AS kind,
          (SELECT attname FROM pg_attribute WHERE attrelid = c.conrelid AND attnum = c.conkey[1]) AS first
        FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid WHERE t.relnamespace = 'hansa'::regnamespace AND c.contype IN ('p', 'f')
        AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = t.oid AND attname = 'tenant_id')""")
    assert len(rows) >= len(ROWS)
    assert [row for row in rows if row["first"] != "tenant_id"] == []


async def test_no_function_runs_with_more_rights_than_its_caller_but_those_of_the_system(two_tenants: Scratch) -> None:
    functions = await two_tenants.fetch("""
        SELECT proname, prosecdef, coalesce(proconfig::text LIKE '%search_path=%', false) AS fixed,
          has_function_privilege('hansa_app', oid, 'EXECUTE') AS app
        FROM pg_proc WHERE pronamespace = 'hansa'::regnamespace""")
    definers = {row["proname"]: (row["fixed"], row["app"]) for row in functions if row["prosecdef"]}
    assert definers == dict.fromkeys(DEFINERS, (True, False))
    assert len(functions) > len(definers)


@pytest.mark.parametrize("tenant", [A, None])
async def test_no_row_of_another_tenant_is_seen_or_changed(two_tenants: Scratch, tenant: UUID | None) -> None:
    for table in ("tenants", *ROWS):
        async with app(two_tenants, tenant) as connection:
            seen = await connection.fetch(f"SELECT tenant_id FROM hansa.{table}")
            assert {row["tenant_id"] for row in seen} == ({A} if tenant and table == "tenants" else set()), table
            for sql in (f"UPDATE hansa.{table} SET tenant_id = tenant_id", f"DELETE FROM hansa.{table}"):
                transaction = connection.transaction()
                await transaction.start()
                try:
                    assert (await connection.execute(sql)).endswith(" 0") or table == "tenants"
                except asyncpg.InsufficientPrivilegeError:
                    pass
                finally:
                    await transaction.rollback()
    assert len(await two_tenants.fetch("SELECT FROM hansa.runs WHERE tenant_id = $1", B)) == 1


async def test_the_owner_of_a_row_does_see_it(two_tenants: Scratch) -> None:
    async with app(two_tenants, B) as connection:
        for table in ROWS:
            rows = 2 if table == "storage" else 1  # its own, and one that counts the value
            assert len(await connection.fetch(f"SELECT FROM hansa.{table}")) == rows, table


@pytest.mark.parametrize("table", ROWS)
async def test_no_row_is_written_for_another_tenant(two_tenants: Scratch, table: str) -> None:
    fresh = {"id": "other"} if table == "api_keys" else {}
    for tenant in (A, None):
        async with app(two_tenants, tenant) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                await insert(connection, table, B, **fresh)


async def test_no_row_of_another_tenant_is_referred_to(two_tenants: Scratch) -> None:
    async with app(two_tenants, A) as connection:
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await insert(connection, "runs", A)


async def test_the_engines_verbs_find_nothing_of_another_tenant(own_tenants: Scratch) -> None:
    async with open_database(own_tenants.settings.database) as database:
        for verb in ("run_cancel", "run_suspend"):
            assert await database.call(f"SELECT hansa.{verb}($1, $2)", A, UUID(int=2)) is None
        assert await database.call("SELECT hansa.approval_settle($1, $2, 'approved', 'p', NULL, NULL)", A, UUID(int=3)) == "gone"
        assert await database.call("SELECT hansa.wait_expire($1, $2, '1')", A, UUID(int=2)) == "gone"
        assert await database.call("SELECT outcome FROM hansa.run_resume($1, $2, NULL, NULL, 'p')", A, UUID(int=2)) == "no_run"
        forked = "SELECT outcome FROM hansa.run_fork($1, 'local', $2, 1, $3, $3)"
        assert await database.call(forked, A, UUID(int=2), UUID(int=9)) == "no_run"
        assert await database.call("SELECT outcome FROM hansa.event_send($1, $2, $2, 'e', '1')", A, UUID(int=1)) == "no_session"
        assert await database.call_rows("SELECT hansa.run_load($1, $2, '{0}')", A, [UUID(int=2)]) == []
        new = {"id": str(uuid4()), "session_id": str(UUID(int=1)), "new_session_id": str(uuid4())}
        row = await database.call_row("SELECT outcome FROM hansa.run_start($1, 'p', 'r', NULL, NULL, 'local', $2, '1')", A, json.dumps(new))
        assert row is not None
        assert row["outcome"] == "no_session"
        assert await database.call("SELECT hansa.run_cancel($1, $2)", B, UUID(int=2)) is not None, "the owner is not found either"


async def test_the_system_role_reads_no_content(two_tenants: Scratch) -> None:
    connection = await asyncpg.connect(two_tenants.settings.database.system_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM (SELECT id FROM hansa.runs) r") == 1
        for sql in (
            *("SELECT input FROM hansa.runs", "SELECT data FROM hansa.events", "SELECT manifest FROM hansa.objects"),
            *("DELETE FROM hansa.runs", "UPDATE hansa.runs SET input = '1'", "SELECT agent FROM hansa.sessions"),
            *("SELECT body FROM hansa.values", "SELECT data FROM hansa.events_default", "UPDATE hansa.sessions SET agent = '1'"),
            *("SELECT payload FROM hansa.outbox", "SELECT kind FROM hansa.outbox", "SELECT id FROM hansa.dead_letters"),
            *(
                "UPDATE hansa.outbox SET payload = '1'",
                "UPDATE hansa.outbox SET state = 'delivered'",
                "UPDATE hansa.inbox SET attempts = 0",
            ),
            *("SELECT event FROM hansa.audit_events", "SELECT action FROM hansa.audit_events", "DELETE FROM hansa.audit_events"),
            *("SELECT answer FROM hansa.idempotency_keys", "INSERT INTO hansa.api_keys (id) VALUES ('x')"),
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(sql)
    finally:
        await connection.close()


async def test_the_app_rewrites_no_history(two_tenants: Scratch) -> None:
    async with app(two_tenants, B) as connection:
        for sql in (
            *("UPDATE hansa.events SET data = '1'", "DELETE FROM hansa.events", "DELETE FROM hansa.runs", "DELETE FROM hansa.sessions"),
            *("UPDATE hansa.values SET body = '1'", "DELETE FROM hansa.values", "DELETE FROM hansa.removed_sessions"),
            *("SELECT data FROM hansa.events_default", "SELECT hansa.log_partition_drop(now())", "SELECT hansa.log_partitions_make(500)"),
            *("UPDATE hansa.audit_events SET event = '{}'", "DELETE FROM hansa.audit_events", "TRUNCATE hansa.audit_events"),
            *("DELETE FROM hansa.audit_heads", "UPDATE hansa.audit_heads SET sealed_seq = 9", "SELECT hansa.audit_partitions_make(500)"),
            *("UPDATE hansa.agent_revisions SET manifest = '1'", "UPDATE hansa.tenants SET name = 'other'", "SET ROLE hansa_owner"),
            *("SET row_security = off; SELECT count(*) FROM hansa.runs", "UPDATE hansa.idempotency_keys SET answer = '1'"),
        ):
            transaction = connection.transaction()
            await transaction.start()
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(sql)
            await transaction.rollback()


async def test_a_connection_that_goes_back_to_the_pool_forgets_its_tenant(two_tenants: Scratch) -> None:
    async with open_database(two_tenants.settings.database) as database:
        for _ in range(20):
            async with database.tenant(B) as connection:
                assert await connection.fetchval("SELECT count(*) FROM hansa.runs") == 1
            assert await database.call("SELECT count(*) FROM hansa.runs") == 0


async def test_the_policy_is_answered_from_the_tenants_index(own_tenants: Scratch) -> None:
    await own_tenants.execute(
        "INSERT INTO hansa.events (tenant_id, session_id, seq, run_id, type, data) "
        "SELECT $1, $2, n, $3, 'log', '1' FROM generate_series(2, 20000) n",
        *(B, UUID(int=1), UUID(int=2)),
    )
    await own_tenants.execute("ANALYZE hansa.events")
    async with app(own_tenants, B) as connection:
        plan = "\n".join(
            row[0]
            for row in await connection.fetch("EXPLAIN SELECT * FROM hansa.events WHERE session_id = $1 AND seq > 19990", UUID(int=1))
        )
    assert "events_default_pkey" in plan, plan
    assert "InitPlan" in plan, plan
