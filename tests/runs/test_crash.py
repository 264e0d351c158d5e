"""Workers killed and frozen in the middle of runs: nothing is lost, nothing is done twice."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from runs.engine import ENDED, LEASE, Engine, apply_agent, call, ended, script, start, until
from runs.oracle import violations
from stack import Process

Workers = Callable[..., Process]
FIVE_STEPS = script(
    call("keyed", "pay", seconds=0.05, rest=0.05),
    call("unsafe", "send", seconds=0.05, rest=0.05),
    call("read", "look", seconds=0.05),
    call("idempotent", "set", seconds=0.05, rest=0.05),
    {"text": "done"},
)
MARKS = frozenset({"pay", "send", "look", "set"})


async def all_ended(engine: Engine, ids: list[str], *, seconds: float) -> float:
    """Wait until all runs have ended; how long it took."""
    begun = time.monotonic()

    async def look() -> bool:
        rows = await engine.fetch("SELECT state FROM hansa.runs WHERE id = ANY($1::uuid[])", ids)
        return all(row["state"] in ENDED for row in rows)

    await until(look, f"{len(ids)} runs have ended", seconds=seconds)
    return time.monotonic() - begun


def lines(engine: Engine, ids: list[str], **wanted: Any) -> list[dict[str, Any]]:
    """What the witness says of these runs."""
    return [
        line
        for line in engine.witness()
        if line["key"].partition(":")[0] in ids and all(line[name] == value for name, value in wanted.items())
    ]


@pytest.mark.timeout(90)
async def test_fifty_runs_survive_the_death_of_two_workers(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "crash")
    first, second = worker(), worker()
    ids = [run["id"] for run in await asyncio.gather(*(start(client, "crash", FIVE_STEPS) for _ in range(50)))]
    await until(lambda: len(lines(engine, ids)) >= 40, "the runs are in full swing")
    first.kill()
    worker()
    await until(lambda: len(lines(engine, ids)) >= 160, "the runs are in full swing again")
    second.kill()
    left = await all_ended(engine, ids, seconds=30)
    runs, events = await engine.facts(ids)
    assert len(runs) == 50
    assert violations(runs, events, lines(engine, ids), marks=MARKS) == []
    assert sum(run["epoch"] > 1 for run in runs) >= 2, "no run was taken over: the kills fell beside the work"
    assert left < LEASE + 15, "the take-over waited for more than the lease and the work itself"


@asynccontextmanager
async def frozen_in_its_calls(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> AsyncIterator[tuple[Process, list[str]]]:
    """A worker that is frozen within four keyed and four unsafe calls, and another that has taken its runs over."""
    await apply_agent(client, "freeze")
    sleeper = worker()
    keyed = script(call("keyed", "pay", seconds=1.0), call("unsafe", "send", rest=2.0), {"text": "done"})
    unsafe = script(call("unsafe", "send", seconds=1.0), call("keyed", "pay"), {"text": "done"})
    runs = await asyncio.gather(*(start(client, "freeze", each) for each in (keyed, unsafe) * 4))
    ids = [run["id"] for run in runs]
    await until(lambda: len(lines(engine, ids, phase="begin")) == 8, "all calls are begun")
    sleeper.freeze()
    other = worker()
    await until(lambda: len({line["pid"] for line in lines(engine, ids, mark="send")}) > 1, "the other worker is at the second call")
    sleeper.thaw()
    await all_ended(engine, ids, seconds=20)
    yield other, ids


async def test_a_worker_that_slept_through_its_lease_does_no_harm(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    async with frozen_in_its_calls(engine, client, worker) as (_, ids):
        await asyncio.sleep(1.0)  # what the sleeper still had in hand
        runs, events = await engine.facts(ids)
        assert violations(runs, events, lines(engine, ids), marks=frozenset({"pay", "send"})) == []
        states = [run["state"] for run in runs]
        assert (states.count("completed"), states.count("needs_review")) == (4, 4)


async def test_without_the_epoch_in_the_write_the_oracle_sees_the_harm(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    connection = await engine.admin()
    try:
        whole = await connection.fetchval("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = 'run_write'")
        broken = whole.replace("AND r.epoch = a.epoch AND r.writes = a.number - 1", "").replace(
            "AND r.epoch = a.epoch AND r.writes = a.number", ""
        )
        assert broken != whole
        await connection.execute(broken)
        try:
            async with frozen_in_its_calls(engine, client, worker) as (_, ids):
                runs, events = await engine.facts(ids)
                assert violations(runs, events, lines(engine, ids), marks=frozenset({"pay", "send"})) != []
        finally:
            await connection.execute(whole)
    finally:
        await connection.close()


async def test_an_unsafe_call_without_a_result_waits_for_a_person(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "review")
    first = worker()
    run = await start(client, "review", script(call("unsafe", "send", rest=3.0), {"text": "done"}))
    behind = await start(client, "review", script({"text": "next"}), session_id=run["session_id"])
    await until(lambda: lines(engine, [run["id"]], phase="effect"), "the effect is there and its result is not")
    first.kill()
    worker()
    body = await ended(client, run["id"])
    assert body["state"] == "needs_review"
    assert len(lines(engine, [run["id"]], phase="begin")) == 1
    waiting = (await client.get(f"/v1/runs/{behind['id']}")).json()
    assert waiting["state"] == "queued", "the session goes on before the doubt is settled"
    _, events = await engine.facts([run["id"]])
    events = [event for event in events if str(event["run_id"]) == run["id"]]
    assert (events[-1]["type"], events[-1]["data"]["name"], events[-1]["data"]["step"]) == ("run.needs_review", "witness_unsafe", "2")
    canceled = await client.post(f"/v1/runs/{run['id']}/cancel")
    assert (canceled.status_code, canceled.json()["state"]) == (202, "canceled")
    assert (await ended(client, behind["id"]))["output"] == "next", "the session does not go on"
    replay = (await client.get(f"/v1/runs/{run['id']}/replay")).json()
    assert replay["equal"], replay
    assert len(lines(engine, [run["id"]])) == 2, "the replay has called the tool"


async def test_a_worker_told_to_stop_hands_over_at_once(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "drain")
    patient = {"HANSA_WORKER_LEASE_SECONDS": "60", "HANSA_WORKER_RENEW_SECONDS": "20"}
    leaving = worker(**patient)
    runs = [await start(client, "drain", script(call("keyed", "pay", rest=1.5), {"text": "done"})) for _ in range(4)]
    ids = [run["id"] for run in runs]
    await until(lambda: len(lines(engine, ids, phase="begin")) == 4, "all calls are begun")
    worker(**patient)
    begun = time.monotonic()
    assert leaving.terminate() == 0
    await all_ended(engine, ids, seconds=20)
    assert time.monotonic() - begun < 15, "the runs have waited for the end of a lease"
    runs, events = await engine.facts(ids)
    assert violations(runs, events, lines(engine, ids), marks=frozenset({"pay"})) == []
    assert {(run["state"], run["takeovers"]) for run in runs} == {("completed", 0)}


@pytest.mark.timeout(120)
async def test_a_run_that_kills_each_of_its_workers_is_given_up(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "poison")
    poison = {"tool_calls": [{"name": "witness_deadly", "arguments": {"mark": "die"}}]}
    run = await start(client, "poison", script(poison, {"text": "done"}))
    lease = {"HANSA_WORKER_LEASE_SECONDS": "1"}
    for death in range(1, 6):
        worker(**lease)
        await until(lambda death=death: len(lines(engine, [run["id"]])) == death, f"worker {death} is dead")
    worker(**lease)
    body = await ended(client, run["id"])
    assert (body["state"], body["error"]["code"]) == ("failed", "worker_lost")
    assert len(lines(engine, [run["id"]])) == 5
