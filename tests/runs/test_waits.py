"""Runs that wait cost no worker anything, are woken by what they wait for, and forget nothing of it, whoever is killed meanwhile."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx2

from runs.engine import Engine, apply, apply_agent, ended, start, until
from samples import agent
from stack import Process

Workers = Callable[..., Process]
STEPS = {"runtime": {"name": "steps"}}


async def state_of(client: httpx2.AsyncClient, run: dict[str, Any]) -> dict[str, Any]:
    return (await client.get(f"/v1/runs/{run['id']}")).json()


async def waiting(client: httpx2.AsyncClient, run: dict[str, Any], count: int = 1) -> dict[str, Any]:
    """The run once it waits for so many things."""

    async def look() -> dict[str, Any] | None:
        found = await state_of(client, run)
        return found if found["state"] == "waiting" and len(found["waits"]) == count else None

    return await until(look, "the run waits")


async def send(client: httpx2.AsyncClient, run: dict[str, Any], name: str, data: Any) -> dict[str, Any]:
    answer = await client.post(f"/v1/sessions/{run['session_id']}/events/{name}", json={"data": data})
    assert answer.status_code == 202, answer.text
    return answer.json()


async def decide(client: httpx2.AsyncClient, run: dict[str, Any], **decision: Any) -> httpx2.Response:
    (wait,) = [wait for wait in (await state_of(client, run))["waits"] if wait["kind"] == "approval"]
    return await client.post(f"/v1/approvals/{wait['key']}/decide", json=decision)


async def equal(client: httpx2.AsyncClient, run: dict[str, Any]) -> None:
    replay = (await client.get(f"/v1/runs/{run['id']}/replay")).json()
    assert replay["equal"], replay


async def test_a_run_sleeps_in_the_database_and_goes_on_in_time(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "sleeper", **STEPS)
    worker()
    begun = time.monotonic()
    run = await start(client, "sleeper", [["tool", "witness_keyed", "before", 0], ["sleep", 1.5], ["tool", "witness_keyed", "after", 0]])
    (wait,) = (await waiting(client, run))["waits"]
    assert (wait["kind"], wait["step"]) == ("timer", "2")
    body = await ended(client, run["id"])
    assert body["output"] == ["before", "slept", "after"]
    assert 1.5 <= time.monotonic() - begun < 6
    own = [line for line in engine.witness() if line["key"].startswith(run["id"])]
    assert [line["mark"] for line in own if line["phase"] == "effect"] == ["before", "after"]
    await equal(client, run)


async def test_waits_outlive_every_worker(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "patient", **STEPS)
    first = worker()
    runs = [await start(client, "patient", [["sleep", 2], ["tool", "witness_unsafe", f"{n}", 0]]) for n in range(5)]
    asked = await start(client, "patient", [["ask", "What now?"], ["tool", "witness_unsafe", "answered", 0]])
    for run in (*runs, asked):
        await waiting(client, run)
    first.kill()
    answer = await decide(client, asked, decision="answer", answer={"go": True})
    assert (answer.status_code, answer.json()["state"], answer.json()["decided_by"]) == (200, "answered", answer.json()["decided_by"])
    worker()
    for run in runs:
        assert (await ended(client, run["id"]))["state"] == "completed"
    assert (await ended(client, asked["id"]))["output"] == [{"go": True}, "answered"]
    await equal(client, asked)


async def test_an_event_is_kept_until_someone_waits_for_it(client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "hears", **STEPS)
    worker()
    run = await start(client, "hears", [["event", "paid", None], ["event", "paid", None], ["event", "never", 0.3]])
    await waiting(client, run)
    assert (await send(client, run, "other", 0))["delivered"] is False
    first = await send(client, run, "paid", {"amount": 1})
    assert (first["delivered"], first["run_id"]) == (True, run["id"])
    await send(client, run, "paid", 2)
    body = await ended(client, run["id"])
    assert body["output"] == [{"amount": 1}, 2, "wait_expired: no event 'never' came within its time"]
    next_run = await start(client, "hears", [["event", "other", None]], session_id=run["session_id"])
    assert (await ended(client, next_run["id"]))["output"] == [0]
    await equal(client, run)


async def test_a_published_event_reaches_all_that_wait_for_it(client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "crowd", **STEPS)
    worker()
    readers = [await start(client, "crowd", [["event", "news", None]]) for _ in range(4)]
    for reader in readers:
        await waiting(client, reader)
    sender = await start(client, "crowd", [["publish", "news", {"n": 1}]])
    for reader in readers:
        assert (await ended(client, reader["id"]))["output"] == [{"n": 1}]
    assert (await ended(client, sender["id"]))["output"] == ["published"]
    await equal(client, sender)


async def test_an_agent_calls_others_side_by_side(client: httpx2.AsyncClient, worker: Workers) -> None:
    callee, broken = agent("callee", tools=[{"plugin": "witness"}], **STEPS), agent("broken", runtime={"name": "broken"})
    caller = agent("caller", tools=[{"agent": "callee"}, {"agent": "broken"}, {"agent": "nobody"}], **STEPS)
    await apply(client, callee, broken, caller)
    worker()
    steps = [
        ["gather", [["call", "callee", [["tool", "witness_keyed", "one", 0.1]]]], [["sleep", 0.1], ["call", "callee", [["sleep", 0.2]]]]],
        ["call", "broken", "raise"],
        ["call", "nobody", 1],
        ["call", "stranger", 1],
    ]
    run = await start(client, "caller", steps)
    body = await ended(client, run["id"], seconds=30)
    assert body["output"][0] == [[["one"]], ["slept", ["slept"]]]
    assert body["output"][1].startswith("call_failed: runtime_error: ")
    assert "there is no agent 'nobody'" in body["output"][2]
    assert "may not call 'stranger'" in body["output"][3]
    children = (await client.get("/v1/runs", params={"agent": "callee"})).json()["data"]
    assert {child["parent_run"] for child in children} == {run["id"]}
    await equal(client, run)


async def test_agents_that_call_in_a_circle_are_stopped(client: httpx2.AsyncClient, worker: Workers) -> None:
    inner: Any = ["sleep", 0]
    for _ in range(10):
        inner = ["call", "echoing", [inner]]
    await apply(client, agent("echoing", tools=[{"agent": "echoing"}], **STEPS))
    worker()
    run = await start(client, "echoing", [inner])
    body = await ended(client, run["id"], seconds=40)
    assert body["state"] == "completed"
    assert "call_depth" in str(body["output"])
    assert len((await client.get("/v1/runs", params={"agent": "echoing"})).json()["data"]) == 9


async def test_who_cancels_a_run_cancels_what_it_called(client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply(client, agent("child", **STEPS), agent("parent", tools=[{"agent": "child"}], **STEPS))
    worker()
    run = await start(client, "parent", [["call", "child", [["sleep", 600]]]])
    await waiting(client, run)

    async def child() -> dict[str, Any] | None:
        found = (await client.get("/v1/runs", params={"agent": "child"})).json()["data"]
        return found[0] if found and found[0]["state"] == "waiting" else None

    called = await until(child, "the child waits")
    assert (await client.post(f"/v1/runs/{run['id']}/cancel")).json()["state"] == "canceled"
    assert (await ended(client, called["id"]))["state"] == "canceled"


async def test_a_branch_goes_on_while_another_waits(client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "forked", **STEPS)
    worker()
    steps = [["gather", [["event", "go", None], ["tool", "witness_keyed", "late", 0]], [["tool", "witness_keyed", "slow", 2.0]]]]
    run = await start(client, "forked", steps)

    async def busy() -> bool:
        return (await state_of(client, run))["state"] == "running"

    await until(busy, "the run works")
    await asyncio.sleep(0.5)
    await send(client, run, "go", "now")
    body = await ended(client, run["id"])
    assert body["output"] == [[["now", "late"], ["slow"]]]
    assert body["epoch"] == 1, "the run was let go while it had something to do"
    await equal(client, run)


async def test_a_call_waits_for_a_person_and_is_the_one_that_was_shown(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    tools = [{"plugin": "witness", "requireApproval": ["witness_unsafe"]}]
    await apply_agent(client, "careful", tools=tools, limits={"approvalSeconds": 1}, **STEPS)
    await apply_agent(client, "careful-long", tools=tools, **STEPS)
    worker()
    runs = [await start(client, "careful-long", [["tool", "witness_unsafe", f"{n}", 0.5]]) for n in range(2)]
    late = await start(client, "careful", [["tool", "witness_unsafe", "late", 0]])
    for run in runs:
        await waiting(client, run)
    pending = (await client.get("/v1/approvals", params={"state": "pending"})).json()["data"]
    shown = {"agent": "careful-long", "name": "witness_unsafe", "arguments": {"mark": "0", "seconds": 0.5}}
    assert shown in [approval["subject"] for approval in pending]
    assert (await decide(client, runs[0], decision="answer", answer=1)).status_code == 422
    (wait,) = (await state_of(client, runs[0]))["waits"]
    assert (await decide(client, runs[0], decision="approve")).json()["state"] == "approved"
    again = await client.post(f"/v1/approvals/{wait['key']}/decide", json={"decision": "deny"})
    assert (again.status_code, "approved already" in again.text) == (409, True)
    assert (await decide(client, runs[1], decision="deny", comment="not today")).json()["comment"] == "not today"
    assert (await ended(client, runs[0]["id"]))["output"] == ["0"]
    assert "not today" in (await ended(client, runs[1]["id"]))["output"][0]
    assert "nobody approved" in (await ended(client, late["id"]))["output"][0]
    ids = [run["id"] for run in (*runs, late)]
    made = [line for line in engine.witness() if line["key"].split(":")[0] in ids and line["phase"] == "effect"]
    assert [line["mark"] for line in made] == ["0"]
    for run in (*runs, late):
        await equal(client, run)
