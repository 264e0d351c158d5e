"""The log lies in weeks: made ahead, found by the planner, safe for tenants, and nothing fails where one is missing."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from hansa.db import selfcheck
from hansa.db.pool import Connection
from hansa.errors import Misconfigured
from hansa.runs.log import store
from log.library import DAY, HOUR, A, Library, id_of

WEEK = 7 * DAY


async def where(library: Library, session: UUID) -> set[str]:
    rows = await library.scratch.fetch("SELECT tableoid::regclass::text AS name FROM hansa.events WHERE session_id = $1", session)
    return {row["name"] for row in rows}


def name_of(at: datetime) -> str:
    return f"hansa.events_{at - timedelta(days=at.weekday()):%Y%m%d}"


async def test_a_sessions_events_lie_in_the_week_in_which_it_was_opened(library: Library) -> None:
    now = datetime.now(UTC)
    assert await where(library, await library.session(A, timedelta())) == {name_of(now)}
    assert await where(library, await library.session(A, -3 * WEEK)) == {name_of(now + 3 * WEEK)}
    old = await library.partition(10 * WEEK)
    assert old == name_of(now - 10 * WEEK)
    session = await library.session(A, 10 * WEEK)
    await library.event(A, session, 2, "{}")
    assert await where(library, session) == {old}


@pytest.mark.parametrize("session", [UUID(int=1), UUID(int=2**128 - 1), id_of(200 * WEEK), id_of(-200 * WEEK)])
async def test_what_belongs_to_no_week_goes_to_the_default(library: Library, session: UUID) -> None:
    await library.event(A, session, 1, "{}")
    assert await where(library, session) == {"hansa.events_default"}


async def test_partitions_are_made_once_by_whoever_comes_first(library: Library) -> None:
    assert await store.make_partitions(library.database, 8) == 0
    assert sum(await asyncio.gather(*(store.make_partitions(library.database, 12) for _ in range(2)))) == 4
    assert await where(library, await library.session(A, -12 * WEEK + HOUR)) != {"hansa.events_default"}


async def test_a_week_whose_events_are_in_the_default_is_left_out_and_nothing_fails(library: Library) -> None:
    ahead = await library.session(A, -10 * WEEK)
    assert await where(library, ahead) == {"hansa.events_default"}
    assert await store.make_partitions(library.database, 12) == 3
    await library.event(A, ahead, 2, "{}")
    assert await where(library, ahead) == {"hansa.events_default"}
    assert await store.make_partitions(library.database, 12) == 0


async def test_partitions_are_made_while_the_log_is_written(library: Library) -> None:
    session = await library.session(A, timedelta())  # of this week, also in its first hour
    async with library.database.tenant(A) as writing:
        sql = "INSERT INTO hansa.events (tenant_id, session_id, seq, run_id, type, data) VALUES ($1, $2, 2, $2, 'log', '1')"
        await writing.execute(sql, A, session)
        assert await asyncio.wait_for(store.make_partitions(library.database, 9), 5) == 1


async def plan(connection: Connection, sql: str, session: UUID, *, force: str) -> str:
    """A statement's plan with the session as a parameter, as drivers and functions send it."""
    await connection.execute(f"SET LOCAL plan_cache_mode = {force}")
    await connection.execute(f"PREPARE looking(uuid) AS {sql}")
    lines = await connection.fetch(f"EXPLAIN (ANALYZE, COSTS OFF) EXECUTE looking('{session}')")
    await connection.execute("DEALLOCATE looking")
    return "\n".join(line[0] for line in lines)


MINE = "tenant_id = (SELECT hansa.tenant()) AND session_id = $1"
READING = {
    "events of a session": f"SELECT data FROM hansa.events WHERE {MINE} AND seq > 0 ORDER BY seq",
    "steps of a run": f"SELECT data FROM hansa.events WHERE {MINE} AND run_id = $1 AND step IS NOT NULL",
}


@pytest.mark.parametrize("force", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("what", READING)
async def test_only_the_sessions_partition_is_read(library: Library, what: str, force: str) -> None:
    session = await library.session(A, timedelta())
    async with library.database.tenant(A) as connection:
        found = await plan(connection, READING[what], session, force=force)
    assert set(re.findall(r"events_\d{8}", found)) == {name_of(datetime.now(UTC)).removeprefix("hansa.")}, found
    assert "events_default" not in found
    assert "Seq Scan" not in found, found


async def test_without_the_session_every_partition_is_read(library: Library) -> None:
    """The control of the test above."""
    async with library.database.tenant(A) as connection:
        found = await plan(connection, "SELECT data FROM hansa.events WHERE run_id = $1", id_of(HOUR), force="force_custom_plan")
    assert "events_default" in found


async def test_a_number_is_given_once_in_a_session(library: Library) -> None:
    session = await library.session(A, timedelta())
    with pytest.raises(asyncpg.UniqueViolationError):
        await library.event(A, session, 1, "{}")


async def test_the_start_is_refused_over_a_partition_that_would_not_keep_tenants_apart(library: Library) -> None:
    await selfcheck.check(library.database)
    week = name_of(datetime.now(UTC))
    for sql, told in (
        (f"ALTER TABLE {week} DISABLE ROW LEVEL SECURITY", f"row-level security is off on {week}"),
        (f"ALTER TABLE {week} NO FORCE ROW LEVEL SECURITY", f"row-level security is not forced on {week}"),
        (f"DROP POLICY tenant ON {week}", f"{week} has no tenant policy"),
    ):
        await library.scratch.execute(f"BEGIN; {sql}")
        await library.scratch.execute("COMMIT")
        with pytest.raises(Misconfigured, match=told):
            await selfcheck.check(library.database)
