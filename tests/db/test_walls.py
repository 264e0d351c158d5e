"""The probe of the walls between tenants reaches into every table, finds nothing where nothing is open, and names each hole."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from db.scratch import Scratch
from hansa.db import selfcheck, walls
from hansa.db.pool import Database, open_database
from hansa.tenants.probing import Prober

ALL = """
SELECT relname FROM pg_class c WHERE relnamespace = 'hansa'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'tenant_id')
"""
POLICY = "POLICY tenant"
WALL = "TO hansa_app, hansa_owner USING (tenant_id = (SELECT hansa.tenant())) WITH CHECK (tenant_id = (SELECT hansa.tenant()))"


@asynccontextmanager
async def opened(scratch: Scratch) -> AsyncIterator[Database]:
    async with open_database(scratch.settings.database) as database:
        yield database


async def test_every_table_is_reached_for_and_no_wall_has_a_hole(scratch: Scratch) -> None:
    before = await scratch.fetch("SELECT tenant_id FROM hansa.tenants")
    async with opened(scratch) as database:
        probed = await walls.probe(database)
    assert (probed.holes, probed.unwritten) == ([], {}), "a table of which the probe can make no row: help it in hansa.db.walls"
    assert probed.tables == len(await scratch.fetch(ALL))
    assert await scratch.fetch("SELECT tenant_id FROM hansa.tenants") == before, "the canary was seen by others"


HOLES = (
    ("DROP POLICY tenant ON hansa.runs", f"CREATE {POLICY} ON hansa.runs {WALL}", "hansa.runs has no tenant policy"),
    (
        "ALTER TABLE hansa.runs DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE hansa.runs ENABLE ROW LEVEL SECURITY",
        "row-level security is off on hansa.runs",
    ),
    (
        "CREATE POLICY wide ON hansa.events FOR SELECT TO hansa_app USING (true)",
        "DROP POLICY wide ON hansa.events",
        "hansa.events: a row is read as another tenant",
    ),
    (
        "ALTER POLICY tenant ON hansa.objects WITH CHECK (true)",
        "ALTER POLICY tenant ON hansa.objects WITH CHECK (tenant_id = (SELECT hansa.tenant()))",
        "hansa.objects: a row is written for a tenant as another tenant",
    ),
    (
        "CREATE VIEW hansa.all_runs AS SELECT * FROM hansa.runs; GRANT SELECT ON hansa.all_runs TO hansa_app; "
        "ALTER VIEW hansa.all_runs OWNER TO postgres",
        "DROP VIEW hansa.all_runs",
        "hansa.all_runs: a row is read as another tenant",
    ),
    ("GRANT TRUNCATE ON hansa.runs TO hansa_app", "REVOKE TRUNCATE ON hansa.runs FROM hansa_app", "the app may do to hansa.runs"),
    ("ALTER TABLE hansa.secrets OWNER TO hansa_app", "ALTER TABLE hansa.secrets OWNER TO hansa_owner", "hansa.secrets is hansa_app's"),
    ("ALTER FUNCTION hansa.run_lock SECURITY DEFINER", "ALTER FUNCTION hansa.run_lock SECURITY INVOKER", "the app may call hansa.run_lock"),
)
"""What somebody might do to the database, what undoes it, and what is said of it."""


async def test_each_hole_is_found_and_named_until_it_is_mended(scratch: Scratch) -> None:
    async with opened(scratch) as database:
        prober = Prober(database, "local", 0.0)
        for hole, mend, told in HOLES:
            await scratch.execute(hole)
            holes = await prober.look()
            assert holes is not None
            assert any(told in each for each in holes), (hole, holes)
            (row,) = await scratch.fetch("SELECT verified, message FROM hansa.isolation_probes")
            assert (row["verified"], told in row["message"]) == (False, True)
            await scratch.execute(mend)
            assert await prober.look() == [], mend


async def test_what_was_mended_is_verified_again_and_since_when(scratch: Scratch) -> None:
    async with opened(scratch) as database:
        prober = Prober(database, "local", 0.0)
        await prober.look()
        (first,) = await scratch.fetch("SELECT verified, since FROM hansa.isolation_probes")
        await prober.look()
        await scratch.execute("ALTER TABLE hansa.runs DISABLE ROW LEVEL SECURITY")
        await prober.look()
        (broken,) = await scratch.fetch("SELECT verified, since, message FROM hansa.isolation_probes")
        await scratch.execute("ALTER TABLE hansa.runs ENABLE ROW LEVEL SECURITY")
        await prober.look()
        (mended,) = await scratch.fetch("SELECT verified, since, message FROM hansa.isolation_probes")
    assert (first["verified"], broken["verified"], mended["verified"], mended["message"]) == (True, False, True, "")
    assert first["since"] < broken["since"] < mended["since"]


async def test_one_worker_at_a_time_probes_and_none_too_soon(scratch: Scratch) -> None:
    async with opened(scratch) as one, opened(scratch) as two:
        looked = await asyncio.gather(*(Prober(each, "local", 30.0).look() for each in (one, two)))
        assert sorted(looked, key=str) == [None, []] or looked == [[], None]
        assert await Prober(one, "local", 30.0).look() is None
        assert await Prober(one, "elsewhere", 30.0).look() == []


async def test_what_others_find_counts_too(scratch: Scratch) -> None:
    async def hole() -> list[str]:
        return ["a subject of tenant a is heard by tenant b"]

    async with opened(scratch) as database:
        prober = Prober(database, "local", 0.0)
        prober.also(hole)
        assert await prober.look() == await hole()


NEWER = (
    "UPDATE hansa.installation SET edition = edition + 1, definitions = 'newer'",
    "UPDATE hansa.alembic_version SET version_num = '9999'",
)
OLDER = (
    "UPDATE hansa.installation SET edition = edition - 1, definitions = 'older'",
    "UPDATE hansa.alembic_version SET version_num = '0003'",
)


async def test_a_worker_that_is_about_to_be_replaced_takes_no_newer_schema_for_a_hole(scratch: Scratch) -> None:
    async with opened(scratch) as database:
        prober = Prober(database, "local", 0.0)
        for step in NEWER:
            await scratch.execute(step)
            assert await prober.look() == [], step
        await scratch.execute("GRANT TRUNCATE ON hansa.runs TO hansa_app")
        assert [each[:30] for each in await prober.look() or ()] == ["the app may do to hansa.runs w"], "a hole is one in any schema"
        await scratch.execute("REVOKE TRUNCATE ON hansa.runs FROM hansa_app")
        for step in reversed(OLDER):
            await scratch.execute(step)
            assert await prober.look() != [], step
            assert await selfcheck.findings(database) != []
