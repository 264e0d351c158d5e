"""Limits in SQL: requests counted ahead of their time, messages of a day, and who is told when a limit is nearly used up."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from db.purse import Purse
from db.scratch import Scratch, open_scratch
from db.verbs import Tenant, connections, new_tenant
from hansa import clock
from hansa.auth.model import Principal
from hansa.db.gathering import carrying
from hansa.db.pool import Database, open_database
from hansa.errors import LimitExceeded
from hansa.tenants import store
from hansa.tenants.rates import Rates
from hansa.tenants.warnings import tell
from stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scratch(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scratch]:
    """One database for all tests here: each has a tenant of its own."""
    async with open_scratch(stack, tmp_path_factory.mktemp("limits")) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(scratch: Scratch) -> AsyncIterator[Database]:
    async with open_database(scratch.settings.database) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def tenant(scratch: Scratch) -> AsyncIterator[Tenant]:
    async with connections(scratch) as (app, system):
        yield await new_tenant(scratch, app, system)


async def bounded(scratch: Scratch, tenant: Tenant, per_second: int) -> Principal:
    """The tenant may make so many requests a second; someone of it."""
    await scratch.execute("UPDATE hansa.tenants SET requests_per_second = $2 WHERE tenant_id = $1", tenant.id, per_second)
    return Principal(tenant.id, "t", "k", ("viewer",), rated=True)


async def admitted(rates: Rates, who: Principal, number: int) -> int:
    """How many of so many requests at once are admitted."""
    said = await asyncio.gather(*(rates.admit(who) for _ in range(number)), return_exceptions=True)
    assert all(each is None or isinstance(each, LimitExceeded) for each in said), said
    return said.count(None)


@pytest.mark.parametrize(("bound", "ahead"), [(100, 44), (1000, 449), (99, 0), (1, 0)])
async def test_nothing_is_counted_ahead_out_of_the_last_half_or_of_a_small_bound(
    scratch: Scratch, database: Database, tenant: Tenant, bound: int, ahead: int
) -> None:
    await bounded(scratch, tenant, bound)
    first = await store.take_requests(database, tenant.id, 1, ahead=10_000)
    assert (first["admitted"], first["ahead"], first["bound"], first["pause"]) == (1, ahead, bound, first["pause"])
    assert first["lease"] == (0.05 if ahead else 0)
    second = await store.take_requests(database, tenant.id, 1, ahead=10_000)
    assert second["ahead"] <= 0.1 * bound


async def test_a_bound_that_is_raised_and_a_clock_that_is_put_back_let_nobody_in_for_nothing(
    scratch: Scratch, database: Database, tenant: Tenant
) -> None:
    await bounded(scratch, tenant, 99)
    assert (await store.take_requests(database, tenant.id, 200, ahead=0))["admitted"] >= 99
    await bounded(scratch, tenant, 1000)
    raised = await store.take_requests(database, tenant.id, 10, ahead=500)
    assert (0 <= raised["admitted"] <= 10, raised["ahead"]) == (True, 0), "the smaller bound has kept nothing back"
    await scratch.execute("UPDATE hansa.request_rates SET due = due + 3600 WHERE tenant_id = $1", tenant.id)
    put_back = await store.take_requests(database, tenant.id, 1, ahead=500)
    assert (put_back["admitted"], put_back["ahead"], put_back["pause"] < 1) == (0, 0, True)


class Line(Database):
    """A process's way to the database: `asked` counts its questions; `cut`, and it is told that nothing is left."""

    def __init__(self, database: Database) -> None:
        self._real = database
        self.asked = 0
        self.cut = False

    async def call_rows(self, sql: str, *arguments: Any) -> Any:
        self.asked += 1
        none: dict[str, Any] = {"admitted": 0, "bound": 1, "pause": 0.0, "ahead": 0, "lease": 0.0}
        return [none] if self.cut else await self._real.call_rows(sql, *arguments)


async def left(rates: Rates, line: Line, who: Principal) -> int:
    """How many requests a process lets in by itself, of what it has counted ahead."""
    line.cut, count = True, 0
    while True:
        try:
            await rates.admit(who)
        except LimitExceeded:
            line.cut = False
            return count
        count += 1


@pytest.mark.parametrize("broken", [False, True])
async def test_what_was_counted_ahead_is_used_in_its_time_or_never(
    scratch: Scratch, database: Database, tenant: Tenant, *, broken: bool
) -> None:
    """Broken: a process whose clock stands still, so that no lease of its ends. A machine that is too slow may hide it once."""
    bound, over, line, still = 10_000, False, Line(database), clock.monotonic()
    who, rates = await bounded(scratch, tenant, bound), Rates(line, (lambda: still) if broken else clock.monotonic)
    async with carrying(rates.gatherer):
        for _ in range(5 if broken else 1):
            assert await admitted(rates, who, 3000) == 3000
            await asyncio.sleep(1.1)  # by now all is there again
            begun = time.monotonic()
            others = (await store.take_requests(database, who.tenant_id, 2 * bound, ahead=0))["admitted"]
            own = await left(rates, line, who)
            over = over or others + own > bound * (1 + time.monotonic() - begun)
            if over:
                break
            await asyncio.sleep(1.1)
    assert over == broken


async def test_two_processes_within_the_bound_are_refused_nothing_and_seldom_ask(
    scratch: Scratch, database: Database, tenant: Tenant
) -> None:
    who, lines = await bounded(scratch, tenant, 400), [Line(database), Line(database)]
    processes = [Rates(line) for line in lines]
    async with AsyncExitStack() as opened:
        for each in processes:
            await opened.enter_async_context(carrying(each.gatherer))
        begun, made = time.monotonic(), 0
        while (passed := time.monotonic() - begun) < 1.5:
            while made < 300 * passed:
                assert await admitted(processes[made % 2], who, 1) == 1
                made += 1
            await asyncio.sleep(0.005)
    assert sum(line.asked for line in lines) < made / 2


async def test_who_is_refused_is_told_so_without_another_question_until_the_time_has_come(
    scratch: Scratch, database: Database, tenant: Tenant
) -> None:
    who, line = await bounded(scratch, tenant, 2), Line(database)
    rates = Rates(line)
    async with carrying(rates.gatherer):
        assert await admitted(rates, who, 5) == 2
        asked = line.asked
        with pytest.raises(LimitExceeded) as refused:
            await rates.admit(who)
        assert line.asked == asked
        await asyncio.sleep((refused.value.retry_after or 0.0) + 0.05)
        assert await admitted(rates, who, 1) == 1


async def send(tenant: Tenant, *arguments: Any) -> dict[str, Any] | None:
    """Count a message; why it may not be sent."""
    said = await tenant.app(f"SELECT hansa.message_take($1{', $2' if arguments else ''})", *arguments)
    return None if said is None else json.loads(said)


async def at_once(scratch: Scratch, tenant: Tenant, each: int) -> int:
    """Eight senders at once, so many messages each; how many were let through."""
    lines = [await asyncpg.connect(scratch.settings.database.app_url) for _ in range(8)]

    async def sender(line: asyncpg.Connection) -> int:
        there = tenant.at(line, line)
        return [await send(there) for _ in range(each)].count(None)

    try:
        return sum(await asyncio.gather(*(sender(line) for line in lines)))
    finally:
        for line in lines:
            await line.close()


async def test_a_tenant_sends_as_many_messages_a_day_as_it_may_and_not_one_more(scratch: Scratch, tenant: Tenant) -> None:
    assert await at_once(scratch, tenant, 1) == 8, "without a bound nothing is counted"
    assert await scratch.fetch("SELECT FROM hansa.message_counts WHERE tenant_id = $1", tenant.id) == []
    await scratch.execute("UPDATE hansa.tenants SET messages_per_day = 37 WHERE tenant_id = $1", tenant.id)
    assert await at_once(scratch, tenant, 10) == 37
    midnight = datetime.combine(datetime.now(UTC).date() + timedelta(days=1), datetime.min.time(), UTC)
    refused = await send(tenant)
    assert refused is not None
    assert (refused["used"], refused["bound"], datetime.fromisoformat(refused["resets_at"])) == (37, 37, midnight)
    await scratch.execute("UPDATE hansa.message_counts SET day = day - 1 WHERE tenant_id = $1", tenant.id)
    assert await at_once(scratch, tenant, 10) == 37, "another day"
    await scratch.execute("UPDATE hansa.message_counts SET day = day + 1 WHERE tenant_id = $1", tenant.id)
    assert await send(tenant) is not None, "a clock that goes back gives nothing"


async def test_a_count_that_is_read_and_written_apart_is_seen_by_that_test(scratch: Scratch, tenant: Tenant) -> None:
    """The broken control: without the lock two senders see the same count."""
    (sql,) = await scratch.fetch("SELECT pg_get_functiondef('hansa.message_take(uuid, uuid)'::regprocedure) AS text")
    broken = sql["text"].replace("FOR UPDATE;", "; PERFORM pg_sleep(0.002);")
    assert broken != sql["text"]
    await scratch.execute("UPDATE hansa.tenants SET messages_per_day = 37 WHERE tenant_id = $1", tenant.id)
    await scratch.execute(broken)
    try:
        assert await at_once(scratch, tenant, 10) > 37
    finally:
        await scratch.execute(sql["text"])


async def test_a_message_that_comes_again_under_its_id_is_counted_once(scratch: Scratch, tenant: Tenant) -> None:
    await scratch.execute("UPDATE hansa.tenants SET messages_per_day = 2 WHERE tenant_id = $1", tenant.id)
    known = uuid4()
    assert await send(tenant, known) is None
    await scratch.execute("INSERT INTO hansa.inbox (tenant_id, id, handled_at) VALUES ($1, $2, now())", tenant.id, known)
    assert [await send(tenant, known) for _ in range(5)] == [None] * 5
    assert await send(tenant, uuid4()) is None
    assert await send(tenant, uuid4()) is not None


async def told(scratch: Scratch, tenant: Tenant) -> list[tuple[str, str, float, float]]:
    """What stands in the tenant's audit trail of its limits, oldest first."""
    rows = await scratch.fetch("SELECT event -> 'after' AS after FROM hansa.audit_events WHERE tenant_id = $1 ORDER BY seq", tenant.id)
    said = [json.loads(row["after"]) for row in rows]
    return [(each["limit"], each["state"], each["used"], each["bound"]) for each in said]


async def test_a_limit_that_is_nearly_used_up_is_told_of_once_each_time(scratch: Scratch, database: Database, tenant: Tenant) -> None:
    purse = Purse(scratch, tenant)
    await purse.sets(1_000_000, tokens=1000, warn_at=50)
    looks = [tell(database) for _ in range(4)]
    await scratch.execute("UPDATE hansa.budgets SET spent = 499999, tokens = 100 WHERE tenant_id = $1", tenant.id)
    await asyncio.gather(*looks)
    assert await told(scratch, tenant) == []
    await scratch.execute("UPDATE hansa.budgets SET spent = 500000 WHERE tenant_id = $1", tenant.id)
    await asyncio.gather(*(tell(database) for _ in range(4)))
    assert await told(scratch, tenant) == [("budget", "warning", 0.5, 1.0)], "once, whoever looks at the same time"
    await scratch.execute("UPDATE hansa.budgets SET spent = 1000000, tokens = 1000 WHERE tenant_id = $1", tenant.id)
    await tell(database)
    await tell(database)
    assert (await told(scratch, tenant))[1:] == [("budget", "reached", 1.0, 1.0), ("tokensPerDay", "reached", 1000, 1000)]
    await purse.sets(1_500_000, tokens=1000, warn_at=50)
    await scratch.execute("UPDATE hansa.budgets SET spent = 1000000, tokens = 1000 WHERE tenant_id = $1", tenant.id)
    await tell(database)
    assert len(await told(scratch, tenant)) == 3, "what sinks is not told of"
    await purse.turns_back(begun=datetime(2020, 1, 1, tzinfo=UTC).date(), day=datetime(2020, 1, 1, tzinfo=UTC).date())
    await tell(database)
    assert await scratch.fetch("SELECT FROM hansa.limit_levels WHERE tenant_id = $1", tenant.id) == []
    await scratch.execute("UPDATE hansa.budgets SET begun = current_date, spent = 900000 WHERE tenant_id = $1", tenant.id)
    await tell(database)
    assert (await told(scratch, tenant))[3:] == [("budget", "warning", 0.9, 1.5)], "again in another period"


async def test_a_tenant_that_is_not_at_work_is_told_nothing(scratch: Scratch, database: Database, tenant: Tenant) -> None:
    await scratch.execute("UPDATE hansa.tenants SET storage_bytes = 1, messages_per_day = 1 WHERE tenant_id = $1", tenant.id)
    await scratch.execute("INSERT INTO hansa.storage (tenant_id, shard, bytes) VALUES ($1, 1, 5)", tenant.id)
    await send(tenant)
    await scratch.execute("UPDATE hansa.tenants SET state = 'archived' WHERE tenant_id = $1", tenant.id)
    await tell(database)
    assert await told(scratch, tenant) == []
    await scratch.execute("UPDATE hansa.tenants SET state = 'active' WHERE tenant_id = $1", tenant.id)
    await tell(database)
    assert await told(scratch, tenant) == [("messagesPerDay", "reached", 1, 1), ("storageBytes", "reached", 5, 1)]


async def test_those_who_keep_large_values_at_the_same_time_have_one_bound_together(scratch: Scratch, tenant: Tenant) -> None:
    await scratch.execute("UPDATE hansa.tenants SET storage_bytes = 150 WHERE tenant_id = $1", tenant.id)
    keep = "SELECT refused FROM hansa.values_keep($1, ARRAY[sha256($2)], ARRAY[100::bigint], ARRAY['1'])"
    async with connections(scratch) as (one, _), connections(scratch) as (other, _):
        async with one.transaction():
            assert await one.fetchval(keep, tenant.id, b"a") is None
            second = asyncio.create_task(other.fetchval(keep, tenant.id, b"b"))
            await asyncio.wait([second], timeout=0.3)
            assert not second.done(), "what the first one keeps is not known yet"
        refused = json.loads(await second)
    assert (refused["used"], refused["bound"], refused["needed"]) == (100, 150, 100)
    assert await scratch.fetch("SELECT size FROM hansa.values WHERE tenant_id = $1", tenant.id) == [{"size": 100}]
