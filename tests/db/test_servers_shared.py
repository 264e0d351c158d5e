"""`hansa migrate` over several databases: on one server at once, and with one of them that goes away."""

import asyncio
from pathlib import Path

import asyncpg
import msgspec
import pytest

from db.scratch import Scratch, open_scratch
from hansa.db.revision import HEAD
from hansa.db.roles import ensure_roles
from hansa.errors import Misconfigured
from hansa.migration import migrate
from stack import Stack

SINKS = """
CREATE FUNCTION public.sink() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); END $$;
CREATE EVENT TRIGGER sink ON ddl_command_start EXECUTE FUNCTION public.sink();
"""


async def test_a_role_that_is_changed_from_another_database_at_this_moment_is_set_up_all_the_same(scratch: Scratch) -> None:
    (row,) = await scratch.fetch("SELECT rolpassword FROM pg_authid WHERE rolname = 'hansa_app'")
    other = await asyncpg.connect(scratch.settings.database.url.rpartition("/")[0] + "/postgres")
    try:
        transaction = other.transaction()
        await transaction.start()
        await other.execute(f"ALTER ROLE hansa_app PASSWORD '{row['rolpassword']}'")
        setting_up = asyncio.create_task(ensure_roles(scratch.settings.database))
        waits = "SELECT FROM pg_stat_activity WHERE query LIKE 'ALTER ROLE%' AND wait_event_type = 'Lock' AND datname = current_database()"
        async with asyncio.timeout(5):
            while not await scratch.fetch(waits):
                await asyncio.sleep(0.01)
        await transaction.commit()
        await setting_up
    finally:
        await other.close()


async def test_a_tenants_database_that_goes_away_meanwhile_is_named_and_the_others_are_migrated(
    scratch: Scratch, stack: Stack, tmp_path: Path
) -> None:
    async with open_scratch(stack, tmp_path, migrated=False) as sunk, open_scratch(stack, tmp_path, migrated=False) as afloat:
        await sunk.execute(SINKS)
        file = tmp_path / "dedicated.toml"
        for name, each in (("sunk", sunk), ("afloat", afloat)):
            urls = [f"{field} = '{getattr(each.settings.database, field)}'\n" for field in ("url", "app_url", "system_url")]
            with file.open("a") as written:
                written.write(f"[{name}]\n{''.join(urls)}")
        database = msgspec.structs.replace(scratch.settings.database, dedicated_file=str(file))
        with pytest.raises(Misconfigured, match="were not migrated: sunk: PostgreSQL is not reachable"):
            await migrate(msgspec.structs.replace(scratch.settings, database=database))
        assert await afloat.fetch("SELECT version_num FROM hansa.alembic_version") == [{"version_num": HEAD}]
