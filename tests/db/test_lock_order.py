"""Functions that lock several rows of a table do it in the order of their keys, whatever order they come in: no two wait for each other."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from uuid import UUID

import asyncpg
import pytest

from db.scratch import Scratch
from db.verbs import Held, Tenant, connections, new_tenant

RUNS = 6
BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
async def tenant(scratch: Scratch) -> AsyncIterator[Tenant]:
    async with connections(scratch) as line:
        yield await new_tenant(scratch, *line)


async def under_way(tenant: Tenant) -> list[Held]:
    """Runs that are worked on and wait for one event, in the order of their sessions, which is not that of their ids."""
    for _ in range(RUNS):
        await tenant.start("a")
    held = sorted(await tenant.claim(RUNS), key=lambda each: each.session)
    await tenant.write(*((each, None, "event") for each in held))
    assert min(each.run for each in held) not in (held[0].run, held[-1].run)
    return held


async def locked_meanwhile(scratch: Scratch, verb: Awaitable[object], lock: str, count: str) -> int:
    """How many rows `verb` has locked when it comes to the one that `lock` locks; it comes to its end after that."""
    holder = scratch.owner.transaction()
    await holder.start()
    await scratch.execute(lock)
    waiting = asyncio.ensure_future(verb)
    while not await scratch.owner.fetchval(BLOCKED):
        await asyncio.sleep(0.02)
        assert not waiting.done(), "it locks nothing"
    free = len(await scratch.fetch(f"{count} FOR UPDATE SKIP LOCKED"))
    await holder.rollback()
    await waiting
    return len(await scratch.fetch(count)) - free


@pytest.mark.parametrize("verb", ["publish", "renew", "release", "write"])
async def test_runs_are_locked_in_the_order_of_their_ids(scratch: Scratch, tenant: Tenant, verb: str) -> None:
    held = await under_way(tenant)
    verbs = {
        "publish": tenant.publish,
        "renew": lambda: tenant.renew(held),
        "release": lambda: tenant.release(held),
        "write": lambda: tenant.write(*((each, "completed", None) for each in held)),
    }
    first: UUID = min(each.run for each in held)
    lock = f"SELECT FROM hansa.runs WHERE id = '{first}' FOR UPDATE"
    assert await locked_meanwhile(scratch, verbs[verb](), lock, "SELECT FROM hansa.runs") == 0


async def test_values_that_were_long_unused_are_locked_in_the_order_of_their_digests(scratch: Scratch, tenant: Tenant) -> None:
    low, high = bytes(32), bytes([255]) * 32

    async def put(*digests: bytes) -> None:
        await tenant.app("SELECT hansa.values_put($1, $2, $3, $4)", digests, [1] * len(digests), ["1"] * len(digests))

    await put(high)
    await put(low)
    await tenant.line.execute("SET enable_indexscan = off; SET enable_bitmapscan = off")  # so that rows are met in the order they lie in
    await scratch.execute("UPDATE hansa.values SET used_at = now() - interval '36 hours' WHERE digest = $1", high)
    await scratch.execute("UPDATE hansa.values SET used_at = now() - interval '36 hours' WHERE digest = $1", low)
    lock = f"SELECT FROM hansa.values WHERE digest = '\\x{low.hex()}' FOR UPDATE"
    assert await locked_meanwhile(scratch, put(high, low), lock, "SELECT FROM hansa.values") == 0
    assert await scratch.owner.fetchval("SELECT count(*) FROM hansa.values WHERE used_at > now() - interval '1 hour'") == 2


async def test_a_slot_left_while_its_agent_is_made_again_is_counted_once(scratch: Scratch, tenant: Tenant) -> None:
    await tenant.agent("a", bound=1)
    await tenant.start("a")
    (held,) = await tenant.claim(1)
    await tenant.app("SELECT hansa.agent_deleted($1, $2)", "a")
    async with connections(scratch) as line:
        other = tenant.at(*line)
        async with other.line.transaction():
            await other.app("SELECT count(*) FROM hansa.slot_leave($1, $2)", held.run)
            making = asyncio.create_task(tenant.agent("a", bound=1))
            await asyncio.wait([making], timeout=0.3)
    await making
    assert [row["held"] for row in await scratch.fetch("SELECT held FROM hansa.agents WHERE name = 'a'")] == [0]


async def bound_meanwhile(scratch: Scratch, verb: Awaitable[object], *, run: UUID) -> None:
    """Let `verb` stop at `run`, where it has locked the agents that had a bound; give agent a one, and lock it: `verb` must not want it."""
    holder, late = await asyncpg.connect(scratch.settings.database.url), await asyncpg.connect(scratch.settings.database.url)
    try:
        gate, agent = holder.transaction(), late.transaction()
        await gate.start()
        await holder.execute("SELECT FROM hansa.runs WHERE id = $1 FOR UPDATE", run)
        waiting = asyncio.ensure_future(verb)
        while not await scratch.owner.fetchval(BLOCKED):
            await asyncio.sleep(0.02)
            assert not waiting.done(), "it locks nothing"
        await late.execute("UPDATE hansa.agents SET bound = 5 WHERE name = 'a'")
        await agent.start()
        await late.execute("SELECT FROM hansa.agents WHERE name = 'a' FOR UPDATE")
        await gate.rollback()
        await asyncio.wait_for(waiting, 10)
        await agent.rollback()
    finally:
        await holder.close()
        await late.close()


async def test_an_agent_that_is_given_a_bound_meanwhile_is_not_locked_after_runs(scratch: Scratch, tenant: Tenant) -> None:
    held = await under_way(tenant)
    await tenant.write(*((each, "waiting", None) for each in held))
    await bound_meanwhile(scratch, tenant.publish(), run=min(each.run for each in held))
    assert len(await tenant.claim(RUNS)) == RUNS, "all go on"


async def test_nor_when_a_session_makes_way_for_a_new_run(scratch: Scratch, tenant: Tenant) -> None:
    (first, *_) = await under_way(tenant)
    await scratch.execute("UPDATE hansa.agents SET concurrency = 'Interrupt' WHERE name = 'a'")
    await bound_meanwhile(scratch, tenant.start("a", session=first.session), run=first.run)
    assert await scratch.owner.fetchval("SELECT cancel_requested_at IS NOT NULL FROM hansa.runs WHERE id = $1", first.run)


AGENTS_LOCK = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = 'agents_lock'"


async def checks_under_way(tenant: Tenant) -> list[Held]:
    """Runs that check revisions of both agents, that of b in the session that comes first."""
    for revision in range(2, 40):
        runs = {name: await tenant.rollout(name, revision, bytes([revision])) for name in ("a", "b")}
        for name, run in runs.items():
            await tenant.check(name, revision, run)
        held = {each.run: each for each in await tenant.claim(8)}
        first, second = held[runs["b"]], held[runs["a"]]
        if first.session < second.session:
            return [first, second]
    raise AssertionError("sessions come in no other order")


@pytest.mark.parametrize("guarded", [True, False])
async def test_agents_whose_revisions_are_checked_are_locked_in_the_order_of_their_names(
    scratch: Scratch, tenant: Tenant, *, guarded: bool
) -> None:
    held = await checks_under_way(tenant)
    if not guarded:
        whole = await scratch.owner.fetchval(AGENTS_LOCK)
        await scratch.execute(whole.replace(" OR a.checking", ""))
    lock = "SELECT FROM hansa.agents WHERE name = 'a' FOR UPDATE"
    verb = tenant.write(*((each, "completed", None) for each in held))
    locked = await locked_meanwhile(scratch, verb, lock, "SELECT FROM hansa.agents WHERE name = 'b'")
    assert locked == (0 if guarded else 1)
    assert [row["revision"] > 1 for row in await scratch.fetch("SELECT revision FROM hansa.agents ORDER BY name")] == [True, True]
