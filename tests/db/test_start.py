"""The start-up check refuses a database that would not keep tenants apart; migrations can be repeated and run side by side."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from db.scratch import Scratch, open_scratch
from hansa.db import selfcheck
from hansa.db.migrate import migrate as upgrade
from hansa.db.pool import open_database
from hansa.db.revision import HEAD
from hansa.errors import Misconfigured, Unavailable
from hansa.migration import migrate
from hansa.settings import Settings
from stack import Stack, free_port


async def refusal(settings: Settings) -> str:
    """What the check says against the database."""
    async with open_database(settings.database) as database:
        with pytest.raises(Misconfigured) as refused:
            await selfcheck.check(database)
        return refused.value.detail


async def test_a_migrated_database_is_passed(scratch: Scratch) -> None:
    async with open_database(scratch.settings.database) as database:
        await selfcheck.check(database)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("DROP POLICY tenant ON hansa.runs", "hansa.runs has no tenant policy; run: CREATE POLICY tenant ON hansa.runs"),
        ("ALTER TABLE hansa.events DISABLE ROW LEVEL SECURITY", "run: ALTER TABLE hansa.events ENABLE ROW LEVEL SECURITY"),
        ("ALTER TABLE hansa.sessions NO FORCE ROW LEVEL SECURITY", "run: ALTER TABLE hansa.sessions FORCE ROW LEVEL SECURITY"),
        ("ALTER POLICY tenant ON hansa.objects USING (true)", "hansa.objects has no tenant policy"),
        (
            "ALTER POLICY tenant ON hansa.objects USING (tenant_id = (SELECT hansa.tenant()) OR name = 'x')",
            "hansa.objects has no tenant policy",
        ),
        ("CREATE POLICY leak ON hansa.runs USING (true)", "run: DROP POLICY leak ON hansa.runs"),
        ("CREATE POLICY leak ON hansa.runs FOR SELECT TO hansa_app USING (true)", "run: DROP POLICY leak ON hansa.runs"),
        ("GRANT TRUNCATE ON hansa.runs TO hansa_app", "run: REVOKE TRUNCATE, REFERENCES, TRIGGER ON hansa.runs FROM hansa_app, PUBLIC"),
        ("GRANT TRIGGER ON hansa.runs TO PUBLIC", "run: REVOKE TRUNCATE, REFERENCES, TRIGGER ON hansa.runs FROM hansa_app, PUBLIC"),
        ("ALTER TABLE hansa.secrets OWNER TO hansa_app", "run: ALTER TABLE hansa.secrets OWNER TO hansa_owner"),
        ("CREATE TABLE hansa.extra (tenant_id uuid)", "row-level security is off on hansa.extra"),
        ("CREATE VIEW hansa.peek AS SELECT * FROM hansa.runs", "view hansa.peek bypasses row-level security"),
        ("CREATE MATERIALIZED VIEW hansa.peek AS SELECT 1 AS one", "view hansa.peek bypasses row-level security"),
        ("UPDATE hansa.alembic_version SET version_num = '9999'", f"at revision 9999, this code needs {HEAD}"),
        ("UPDATE hansa.alembic_version SET version_num = '0000'", f"at revision 0000, this code needs {HEAD}"),
        ("DROP TABLE hansa.alembic_version", "at revision None"),
    ],
)
async def test_a_database_that_would_mix_tenants_is_refused(scratch: Scratch, damage: str, told: str) -> None:
    await scratch.execute(damage)
    assert told in await refusal(scratch.settings)


async def test_the_sql_that_the_check_names_does_mend_it(scratch: Scratch) -> None:
    await scratch.execute("DROP POLICY tenant ON hansa.runs; ALTER TABLE hansa.events DISABLE ROW LEVEL SECURITY")
    await scratch.execute("ALTER TABLE hansa.sessions NO FORCE ROW LEVEL SECURITY; CREATE POLICY leak ON hansa.objects USING (true)")
    told = await refusal(scratch.settings)
    advice = [part.split("run: ", 1)[1] for part in told.split("; ") if part.startswith("run: ")]
    assert len(advice) == 4
    for sql in advice:
        await scratch.execute(sql)
    async with open_database(scratch.settings.database) as database:
        await selfcheck.check(database)


@pytest.mark.parametrize("beyond", ["hansa_system", "pg_execute_server_program"])
async def test_a_role_that_may_take_on_more_may_not_serve(scratch: Scratch, beyond: str) -> None:
    """Roles are the server's, and other tests use it: so one of its own logs in, as it may on servers where roles are given out."""
    login = f"login_{uuid4().hex[:12]}"
    found = urlsplit(scratch.settings.database.app_url)
    settings = scratch.with_url(app_url=found._replace(netloc=f"{login}:none@{found.hostname}:{found.port}").geturl())
    await scratch.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'none' IN ROLE hansa_app; GRANT {beyond} TO {login}")
    try:
        told = await refusal(settings)
        assert f"HANSA_DATABASE_APP_URL logs in as {login}, which may act as {beyond}; run: REVOKE {beyond} FROM {login}" in told
        await scratch.execute(f"REVOKE {beyond} FROM {login}")
        async with open_database(settings.database) as database:
            await selfcheck.check(database)
    finally:
        await scratch.execute(f"DROP ROLE {login}")


@pytest.mark.parametrize("which", ["app_url", "system_url"])
async def test_a_superuser_may_not_serve(scratch: Scratch, which: str) -> None:
    told = await refusal(scratch.with_url(**{which: scratch.settings.database.url}))
    assert f"HANSA_DATABASE_{which.upper()} logs in as postgres, which is above row-level security" in told


async def test_without_a_schema_the_check_says_what_to_run(stack: Stack, tmp_path: Path) -> None:
    async with open_scratch(stack, tmp_path, migrated=False) as empty:
        await empty.execute("CREATE SCHEMA hansa; GRANT USAGE ON SCHEMA hansa TO hansa_app")
        assert "run `hansa migrate`" in await refusal(empty.settings)


async def test_migrating_again_changes_nothing(scratch: Scratch) -> None:
    key = scratch.key_file.read_text()
    before = await scratch.fetch("SELECT k::text AS row FROM hansa.api_keys k UNION ALL SELECT t::text FROM hansa.tenants t ORDER BY 1")
    assert await migrate(scratch.settings) == (HEAD, "the key file is in order")
    assert scratch.key_file.read_text() == key
    assert (
        await scratch.fetch("SELECT k::text AS row FROM hansa.api_keys k UNION ALL SELECT t::text FROM hansa.tenants t ORDER BY 1")
        == before
    )


async def test_migrators_side_by_side_agree(stack: Stack, tmp_path: Path) -> None:
    async with open_scratch(stack, tmp_path, migrated=False) as empty:
        outcomes = await asyncio.gather(*(migrate(empty.settings) for _ in range(4)))
        assert {revision for revision, _ in outcomes} == {HEAD}
        assert [told for _, told in outcomes].count("the key file is in order") == 3
        keys = await empty.fetch("SELECT id FROM hansa.api_keys WHERE revoked_at IS NULL")
        assert [row["id"] for row in keys] == [empty.key_file.read_text().split("_")[2]]


async def test_a_database_of_a_newer_version_is_left_alone(scratch: Scratch) -> None:
    await scratch.execute("UPDATE hansa.alembic_version SET version_num = '9999'")
    with pytest.raises(Misconfigured, match="revision 9999, which this version of Hansa does not know"):
        await upgrade(scratch.settings.database.url)
    assert (await scratch.fetch("SELECT version_num FROM hansa.alembic_version"))[0]["version_num"] == "9999"


async def test_a_role_that_was_given_too_much_is_put_right(scratch: Scratch) -> None:
    await scratch.execute("ALTER ROLE hansa_app SUPERUSER")
    try:
        assert "logs in as hansa_app, which is above" in await refusal(scratch.settings)
    finally:
        await migrate(scratch.settings)
    async with open_database(scratch.settings.database) as database:
        await selfcheck.check(database)


async def test_a_server_that_is_not_there_is_waited_for_and_then_named(scratch: Scratch) -> None:
    nowhere = f"postgresql://hansa_app:x@127.0.0.1:{free_port()}/postgres"
    database = scratch.with_url(app_url=nowhere).database
    with pytest.raises(Unavailable, match=r"not reachable after 0\.3 s"):
        async with asyncio.timeout(10), open_database(type(database)(app_url=nowhere, system_url=nowhere, timeout_seconds=0.3)):
            pass


async def test_a_wrong_password_is_told_at_once(scratch: Scratch) -> None:
    url = scratch.settings.database.app_url
    wrong = url.replace(url.split("@")[0].rsplit(":", 1)[1], "wrong")
    with pytest.raises(Misconfigured, match="refuses the login"):
        async with asyncio.timeout(5), open_database(scratch.with_url(app_url=wrong).database):
            pass


async def test_a_wrong_argument_is_not_taken_for_a_server_that_is_away(scratch: Scratch) -> None:
    async with open_database(scratch.settings.database) as database:
        with pytest.raises(asyncpg.DataError, match="int32"):
            await database.call("SELECT $1::integer", 2**40)
