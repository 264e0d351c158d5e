"""What is older than it is kept goes, whole and in bounded steps; what anybody still needs stays, whatever is asked."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from hansa.errors import Unavailable
from hansa.runs.log import retention, store
from hansa.runs.log.retention import Retention
from log.library import DAY, HOUR, A, B, Library

MIDDLING, LARGE = "m" * 5_000, "l" * 20_000


async def sweep(library: Library, days: int = 30) -> None:
    await Retention(library.database, library.artifacts, days).sweep()


async def test_idle_sessions_go_with_all_that_only_they_refer_to(library: Library) -> None:
    old, young = (
        [await library.session(tenant, 40 * DAY) for tenant in (A, B)],
        [await library.session(tenant, 20 * DAY) for tenant in (A, B)],
    )
    for session, tenant in zip(old, (A, B), strict=True):
        await library.keep(tenant, session, 2, text=MIDDLING, output=LARGE)
    mine = {*await library.keep(A, young[0], 2, text="young" + MIDDLING, output="young" + LARGE)}
    await library.age_values(20)
    await sweep(library)
    assert await library.sessions() == set(young)
    for table in ("runs", "sessions"):
        assert await library.count(table) == 2, table
    assert (await library.count("events"), await library.count("value_refs"), await library.count("removed_sessions")) == (3, 2, 0)
    assert await library.digests() == mine
    assert library.objects() < mine
    assert len(library.objects()) == 1


async def test_without_a_bound_nothing_is_removed(library: Library) -> None:
    session = await library.session(A, 4000 * DAY)
    await sweep(library, days=0)
    assert await library.sessions() == {session}


async def test_an_old_session_that_is_still_used_stays(library: Library) -> None:
    used = await library.session(A, 400 * DAY, idle=29 * DAY)
    await library.session(A, 400 * DAY, idle=31 * DAY)
    await sweep(library)
    assert await library.sessions() == {used}
    assert await library.count("events") == 1


@pytest.mark.parametrize("state", ["queued", "running", "waiting", "suspended", "needs_review"])
async def test_a_session_with_a_run_that_has_not_ended_stays(library: Library, state: str) -> None:
    session = await library.session(A, 400 * DAY, state=state)
    await sweep(library)
    assert await library.sessions() == {session}
    await library.scratch.execute("UPDATE hansa.runs SET state = 'failed'")
    await sweep(library)
    assert await library.sessions() == set()


async def test_a_value_stays_while_another_session_refers_to_it(library: Library) -> None:
    old, young = await library.session(A, 40 * DAY), await library.session(A, 2 * DAY)
    shared = await library.keep(A, old, 2, text=MIDDLING, output=LARGE)
    assert await library.keep(A, young, 2, text=MIDDLING, output=LARGE) == shared
    await library.age_values(10)
    await sweep(library)
    assert await library.sessions() == {young}
    assert await library.digests() == set(shared)
    assert len(library.objects()) == 1


async def test_a_value_of_today_stays_though_nobody_refers_to_it_yet(library: Library) -> None:
    fresh = await library.keep(A, None, 0, text=LARGE)
    await sweep(library)
    assert await library.digests() == set(fresh) == library.objects()
    await library.age_values(3)
    await sweep(library)
    assert (await library.digests(), library.objects()) == (set(), set())


async def test_a_week_that_nobody_needs_is_dropped_whole_and_any_other_row_by_row(library: Library) -> None:
    whole, mixed = await library.partition(70 * DAY), await library.partition(50 * DAY)
    for _ in range(3):
        await library.session(A, 70 * DAY)
        await library.session(B, 50 * DAY)
    used = await library.session(A, 50 * DAY, idle=HOUR)
    await sweep(library)
    left = {row["name"] for row in await library.scratch.fetch("SELECT inhrelid::regclass::text AS name FROM pg_inherits")}
    assert whole not in left
    assert mixed in left
    assert await library.sessions() == {used}
    assert (await library.count("events"), await library.count("removed_sessions")) == (1, 0)


async def test_a_week_in_which_a_session_is_just_being_written_is_not_dropped(library: Library) -> None:
    whole = await library.partition(70 * DAY)
    before = datetime.now(UTC) - 30 * DAY
    async with library.database.tenant(A) as writing:
        (row,) = await library.scratch.fetch("SELECT hansa.id_floor($1) AS id", datetime.now(UTC) - 70 * DAY)
        await writing.execute("INSERT INTO hansa.sessions (tenant_id, id, agent) VALUES ($1, $2, 'agent')", A, row["id"])
        sql = "INSERT INTO hansa.events (tenant_id, session_id, seq, run_id, type, data) VALUES ($1, $2, 1, $2, 'log', '1')"
        await writing.execute(sql, A, row["id"])
        assert not await store.drop_partition(library.database, before)
    assert not await store.drop_partition(library.database, before)
    assert await library.count(whole.removeprefix("hansa.")) == 1
    await library.scratch.execute("DELETE FROM hansa.sessions")
    assert await store.drop_partition(library.database, before), "the control: without its session the week does go"


async def test_a_sweep_that_is_cut_off_anywhere_is_finished_by_the_next(library: Library) -> None:
    before = datetime.now(UTC) - 30 * DAY
    for _ in range(5):
        await library.keep(A, await library.session(A, 40 * DAY), 2, text=LARGE)
    await library.age_values(10)
    assert await store.remove_sessions(library.database, before, UUID(int=0), 100) == (5, None)
    assert (await library.count("sessions"), await library.count("runs"), await library.count("events")) == (0, 0, 10)
    assert await store.remove_events(library.database, 3) == 3
    assert await library.count("events") == 8
    await sweep(library)
    for table in ("events", "value_refs", "removed_sessions", "values"):
        assert await library.count(table) == 0, table
    assert library.objects() == set()


async def test_every_step_is_bounded(library: Library) -> None:
    before = datetime.now(UTC) - 30 * DAY
    for age in range(40, 50):
        session = await library.session(A, age * DAY)
        for seq in range(2, 12):
            await library.keep(A, session, seq, text=f"{age} {seq}" + MIDDLING)
    await library.age_values(10)
    removed, after = await store.remove_sessions(library.database, before, UUID(int=0), 4)
    assert (removed, await library.count("sessions")) == (4, 6)
    assert after is not None
    assert await store.remove_sessions(library.database, before, after, 100) == (6, None)
    steps = 0
    while await store.remove_events(library.database, 7):
        steps += 1
    assert (steps >= 110 / 7, await library.count("events")) == (True, 0)
    looked: tuple[UUID, bytes] | None = (UUID(int=0), b"")
    sizes = [await library.count("values")]
    while looked is not None:
        async with library.database.system_transaction() as connection:
            _, looked = await store.remove_values(connection, looked, 30)
        sizes.append(await library.count("values"))
    assert sizes == [100, 70, 40, 10, 0]


async def test_many_workers_sweep_at_once(library: Library) -> None:
    for _ in range(20):
        await library.keep(A, await library.session(A, 40 * DAY), 2, text=LARGE)
    await library.age_values(10)
    await asyncio.gather(*(sweep(library) for _ in range(4)))
    await sweep(library)
    assert (await library.count("sessions"), await library.count("events"), await library.count("values")) == (0, 0, 0)


async def test_a_store_that_does_not_delete_keeps_the_rows_for_the_next_sweep(library: Library) -> None:
    await library.keep(A, await library.session(A, 40 * DAY), 2, text=LARGE)
    await library.age_values(10)
    (path,) = [path for path in library.folder.rglob("*") if path.is_file()]
    path.unlink()
    path.mkdir()
    with pytest.raises(Unavailable):
        await sweep(library)
    assert await library.count("values") == 1
    path.rmdir()
    await sweep(library)
    assert await library.count("values") == 0


async def test_a_run_that_starts_in_a_session_just_being_removed_saves_it_or_finds_nothing(library: Library) -> None:
    session = await library.session(A, 40 * DAY)
    async with library.database.tenant(A) as starting:
        await starting.execute("UPDATE hansa.sessions SET active_at = now() WHERE id = $1", session)
        removing = asyncio.create_task(store.remove_sessions(library.database, datetime.now(UTC) - 30 * DAY, UUID(int=0), 100))
        await asyncio.sleep(0.3)
        assert not removing.done()
    assert (await removing)[0] == 0
    assert await library.sessions() == {session}


@pytest.mark.parametrize(
    ("sql", "left"),
    [
        ("DELETE FROM hansa.sessions", "sessions"),
        ("DELETE FROM hansa.events", "events"),
        ("DELETE FROM hansa.value_refs", "value_refs"),
        ("DELETE FROM hansa.values", "values"),
    ],
)
async def test_the_system_role_removes_nothing_that_is_needed_even_when_asked(library: Library, sql: str, left: str) -> None:
    await library.keep(A, await library.session(A, HOUR, idle=timedelta()), 2, text=MIDDLING)
    await library.age_values(10)
    before = await library.count(left)
    assert before > 0
    await library.database.system(sql)
    assert await library.count(left) == before
    await library.session(A, 400 * DAY, state="waiting")
    await library.database.system("DELETE FROM hansa.sessions")
    assert await library.count("sessions") == 2


async def test_the_system_role_drops_no_week_that_is_needed_even_when_asked(library: Library) -> None:
    for age in (timedelta(), -14 * DAY):
        week: Any = datetime.now(UTC) - age
        week = (week - timedelta(days=week.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
        assert not (await library.database.system("SELECT hansa.log_partition_drop($1)", week))[0][0]
    await library.partition(70 * DAY)
    await library.session(A, 70 * DAY)
    week = datetime.now(UTC) - 70 * DAY
    week = (week - timedelta(days=week.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
    assert not (await library.database.system("SELECT hansa.log_partition_drop($1)", week))[0][0]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await library.database.system("DROP TABLE hansa.events_default")


async def test_the_sweep_makes_the_weeks_ahead(library: Library) -> None:
    week = datetime.now(UTC) + retention.WEEKS_AHEAD * 7 * DAY
    name = f"events_{week - timedelta(days=week.weekday()):%Y%m%d}"
    await library.scratch.execute(f"DROP TABLE hansa.{name}")
    await sweep(library, days=0)
    assert await library.count(name) == 0
