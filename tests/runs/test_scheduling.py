"""Which run is worked on next, when, where, and how many at once: seen by a witness outside, also while workers are killed."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from runs.engine import Engine, apply, apply_agent, start, until
from runs.people import STEPS, Run, all_end, begun, comes_to, do, look, pay, told
from stack import Process

Workers = Callable[..., Process]
PROMPT = timedelta(seconds=3)


def most_at_once(engine: Engine, runs: list[Run]) -> int:
    """The most calls of these runs that were under way at once. One whose worker was killed counts until it is made again."""
    ids, under_way, most = {run["id"] for run in runs}, set[str](), 0
    for line in engine.witness():
        if line["key"].partition(":")[0] in ids:
            (under_way.add if line["phase"] == "begin" else under_way.discard)(line["key"])
            most = max(most, len(under_way))
    return most


@asynccontextmanager
async def tenant_bound(client: httpx2.AsyncClient, bound: int) -> AsyncIterator[None]:
    """The tenant may have so many runs at once."""
    manifest: dict[str, Any] = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "default"}}
    await apply(client, {**manifest, "spec": {"quotas": {"concurrentRuns": bound}}})
    try:
        yield
    finally:
        await apply(client, {**manifest, "spec": {}})


async def test_what_is_urgent_goes_first_and_then_what_is_older(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "urgent", **STEPS)
    priorities = [0, 5, -3, 5, 0, 9, -100, 100]
    runs = [await start(client, "urgent", [pay(f"{n}")], priority=priority) for n, priority in enumerate(priorities)]
    worker(HANSA_WORKER_CONCURRENCY="1")
    await all_end(client, runs)
    assert told(engine, *runs) == ["7", "5", "1", "3", "0", "4", "2", "6"]


@pytest.mark.parametrize("of", ["session", "agent", "tenant"])
async def test_what_the_end_of_a_run_lets_begin_begins_soon(of: str, engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    """No bell is rung for it, and whoever looks by itself does so in a minute."""
    await apply_agent(client, f"follows-{of}", limits={"concurrentRuns": 1 if of == "agent" else 0}, **STEPS)
    worker(HANSA_WORKER_POLL_SECONDS="60")
    async with tenant_bound(client, 1 if of == "tenant" else 0):
        runs = [await start(client, f"follows-{of}", [pay("0", 0.5)])]
        more = {"session_id": runs[0]["session_id"]} if of == "session" else {}
        runs += [await start(client, f"follows-{of}", [pay(f"{n}")], **more) for n in (1, 2, 3, 4)]
        begin = time.monotonic()
        await all_end(client, runs)
        assert time.monotonic() - begin < 10
    assert told(engine, *runs) == ["0", "1", "2", "3", "4"]


async def test_a_run_starts_at_its_time_whoever_lives_then(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "later", **STEPS)
    first, times = worker(), dict[str, datetime]()
    runs: list[Run] = []
    for seconds in (1.0, 1.5, 4.0, 4.5):
        then = datetime.now(UTC) + timedelta(seconds=seconds)
        runs.append(await start(client, "later", [pay("on")], start_at=then.isoformat()))
        times[runs[-1]["id"]] = then
    dropped = await start(client, "later", [pay("off")], start_at=(datetime.now(UTC) + timedelta(seconds=1.0)).isoformat())
    assert (await look(client, dropped))["waits"][0]["kind"] == "start"
    assert (await do(client, dropped, "cancel"))["state"] == "canceled"
    held = await start(client, "later", [pay("off")], start_at=(datetime.now(UTC) + timedelta(seconds=1.0)).isoformat())
    assert (await do(client, held, "suspend"))["state"] == "suspended"
    await all_end(client, runs[:2])
    first.kill()
    assert (await look(client, runs[2]))["state"] == "queued"
    worker()
    for body in await all_end(client, runs):
        late = datetime.fromisoformat(body["started_at"]) - times[body["id"]]
        assert timedelta(0) <= late < PROMPT, late
    assert told(engine, dropped, held, phase="begin") == []
    await do(client, held, "resume")
    assert (await all_end(client, [held]))[0]["output"] == ["off"]


async def test_a_worker_takes_the_runs_of_its_pools_and_no_others(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    pools = {"common": "default", "heavy": "large", "lonely": "none"}
    for name, pool in pools.items():
        await apply_agent(client, name, placement={"pool": pool}, **STEPS)
    runs = {name: await start(client, name, [pay("a", 0.2), ["sleep", 0.3], pay("b")]) for name in pools}
    workers = [worker(HANSA_WORKER_POOLS="large"), worker(HANSA_WORKER_POOLS="default, large")]
    await all_end(client, [runs["heavy"], runs["common"]])
    assert (await look(client, runs["lonely"]))["started_at"] is None
    by = {line["pid"] for line in engine.witness() if line["key"].startswith(runs["common"]["id"])}
    assert by == {workers[1].pid}
    workers[1].kill()
    left = await start(client, "heavy", [pay("a")])
    other = await start(client, "common", [pay("a")])
    await all_end(client, [left])
    await asyncio.sleep(0.6)
    assert (await look(client, other))["started_at"] is None
    await apply_agent(client, "lonely", **STEPS)  # a pool is that of a run's acceptance: what is queued stays where it is
    new = await start(client, "lonely", [pay("a")])
    worker()
    await all_end(client, [other, new])
    assert (await look(client, runs["lonely"]))["state"] == "queued"
    await do(client, runs["lonely"], "cancel")


@pytest.mark.parametrize("of", ["agent", "tenant", "nobody"])
async def test_no_more_than_the_bound_are_worked_on_at_once_whoever_is_killed(
    engine: Engine, client: httpx2.AsyncClient, worker: Workers, of: str
) -> None:
    """`nobody` has no bound: the witness would see it."""
    name = f"bounded-by-{of}"
    await apply_agent(client, name, limits={"concurrentRuns": 3 if of == "agent" else 0}, **STEPS)
    async with tenant_bound(client, 3 if of == "tenant" else 0):
        doomed, _ = worker(), worker()
        calls = [pay("a", 0.15), ["sleep", 0.05], pay("b", 0.15)]
        runs = list(await asyncio.gather(*(start(client, name, calls) for _ in range(10))))
        await until(lambda: len(told(engine, *runs)) >= 3, "they are under way")
        doomed.kill()
        worker()
        assert {run["state"] for run in await all_end(client, runs)} == {"completed"}
    most = most_at_once(engine, runs)
    assert most > 3 if of == "nobody" else most == 3


async def test_nothing_stands_at_a_gate_that_was_moved_or_taken_away(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    async def bound(most: int) -> None:
        await apply_agent(client, "gated", limits={"concurrentRuns": most}, **STEPS)

    async def under_way(count: int) -> None:
        async def look_at_all() -> bool:
            rows = await engine.fetch("SELECT state, gate FROM hansa.runs WHERE agent = 'gated' AND finished_at IS NULL")
            return [row["state"] for row in rows].count("running") == count

        await until(look_at_all, f"{count} are under way")

    await bound(1)
    worker()
    runs = [await start(client, "gated", [pay("a", 60)]) for _ in range(9)]
    await under_way(1)
    for most in (3, 2, 4):
        await bound(most)
        await under_way(max(most, 3))
    assert (await client.delete("/v1/agents/gated")).status_code == 204
    await under_way(9)
    await bound(2)
    more = [await start(client, "gated", [pay("b", 0.1)]) for _ in range(4)]
    assert [(await look(client, run))["state"] for run in more] == ["queued"] * 4
    for run in runs:
        await do(client, run, "cancel")
    assert {run["state"] for run in await all_end(client, more)} == {"completed"}
    assert most_at_once(engine, more) <= 2
    await under_way(0)
    rows = await engine.fetch("SELECT held FROM hansa.agents WHERE name = 'gated'")
    assert rows[0]["held"] == 0
    await bound(1)
    last = [await start(client, "gated", [pay("c")]) for _ in range(3)]
    await bound(0)
    assert {run["state"] for run in await all_end(client, last)} == {"completed"}


async def test_a_worker_told_to_stop_finishes_what_it_can_and_hands_over_the_rest(
    engine: Engine, client: httpx2.AsyncClient, worker: Workers
) -> None:
    await apply_agent(client, "drained", **STEPS)
    patient = {"HANSA_WORKER_LEASE_SECONDS": "60", "HANSA_WORKER_RENEW_SECONDS": "20"}
    leaving = worker(HANSA_WORKER_GRACE_SECONDS="1", **patient)
    short = await start(client, "drained", [pay("a", 0.6), ["values"], pay("b", 0.1)])
    long = await start(client, "drained", [["tool", "witness_unsafe", "a", 0], pay("b", 2.0)])
    stubborn = await start(client, "drained", [["tool", "witness_unsafe", "a", 0], ["stubborn", 30]])
    for run, mark in ((short, "a"), (long, "b"), (stubborn, "a")):
        await begun(engine, run, mark)
    began = time.monotonic()
    leave = asyncio.create_task(asyncio.to_thread(leaving.terminate))
    await asyncio.sleep(0.1)
    new = await start(client, "drained", [pay("new")])
    worker(**patient)
    assert (await comes_to(client, short, "completed"))["epoch"] == 1
    assert await leave == 0
    # The grace, what a plugin is given to stop, what the process waits for it at its end, and the end itself.
    assert time.monotonic() - began < 1 + 5 + 2 + 3
    bodies = await all_end(client, [long, new])
    assert ([body["state"] for body in bodies], bodies[0]["epoch"]) == (["completed"] * 2, 2)
    assert (await look(client, stubborn))["epoch"] == 2
    assert [told(engine, run) for run in (short, long, stubborn)] == [["a", "b"], ["a", "b"], ["a"]]
    await do(client, stubborn, "cancel")
