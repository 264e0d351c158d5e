"""People hold runs, let them go on and cancel them wherever they are: nothing is lost, nothing is done twice."""

import asyncio
from typing import Any

import httpx2
import pytest

from runs.engine import TOOLS, Engine, apply, apply_agent, start
from runs.people import STEPS, Run, all_end, begun, comes_to, do, equal, look, pay, settle, told, types

pytestmark = pytest.mark.usefixtures("steady")


def tenant(**spec: Any) -> Run:
    """The tenant that these tests run in."""
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "default"}, "spec": spec}


async def at_all_places(engine: Engine, client: httpx2.AsyncClient, name: str) -> dict[str, Run]:
    """Runs of an agent with one slot: one waits for its time and one behind it in its session, one is worked on, one stands at the gate."""
    await apply_agent(client, name, limits={"concurrentRuns": 1}, **STEPS)
    waiting = await start(client, name, [pay("a"), ["sleep", 2.5], pay("b")])
    await comes_to(client, waiting, "waiting")
    running = await start(client, name, [pay("a"), pay("b", 2.5), pay("c")])
    await begun(engine, running, "b")
    gated = await start(client, name, [pay("a"), pay("b")])
    behind = await start(client, name, [pay("a"), pay("b")], session_id=waiting["session_id"])
    return {"waiting": waiting, "running": running, "gated": gated, "behind": behind}


async def test_runs_held_wherever_they_are_lose_and_double_nothing(engine: Engine, client: httpx2.AsyncClient) -> None:
    runs = await at_all_places(engine, client, "held")
    in_order = ("waiting", "gated", "behind", "running")  # the last one's slot is free at once
    states = {place: (await do(client, runs[place], "suspend"))["state"] for place in in_order}
    assert (states["waiting"], states["gated"], states["behind"]) == ("suspended", "suspended", "queued")
    await comes_to(client, runs["running"], "suspended")
    before = engine.witness()
    await asyncio.sleep(2.8)  # its time has come meanwhile, and the slot is free
    assert engine.witness() == before
    assert [(await look(client, run))["state"] for run in runs.values()] == ["suspended", "suspended", "suspended", "queued"]
    for place in ("waiting", "running", "gated"):
        await do(client, runs[place], "resume")
    assert [run["state"] for run in await all_end(client, [runs["waiting"], runs["running"], runs["gated"]])] == ["completed"] * 3
    await comes_to(client, runs["behind"], "suspended")
    await do(client, runs["behind"], "resume")
    assert (await all_end(client, [runs["behind"]]))[0]["output"] == ["a", "b"]
    assert told(engine, *runs.values()) == ["a", "a", *told(engine, *runs.values())[2:]]
    for place, run in runs.items():
        assert told(engine, run) == ["a", "b", "c"] if place == "running" else ["a", "b"]
        keys = {(line["mark"], line["key"]) for line in engine.witness() if line["key"].startswith(run["id"])}
        assert len(keys) == len({mark for mark, _ in keys}), "a call was made again under another key"
    await equal(client, *runs.values())


async def test_the_runs_of_a_held_agent_go_on_when_it_does(engine: Engine, client: httpx2.AsyncClient) -> None:
    runs = await at_all_places(engine, client, "halted")
    await apply_agent(client, "halted", limits={"concurrentRuns": 1}, suspend=True, **STEPS)
    assert (await client.post("/v1/agents/halted/runs", json={"input": []})).status_code == 409
    assert (await comes_to(client, runs["running"], "suspended"))["suspended_by"] == "agent"
    assert (await comes_to(client, runs["gated"], "suspended"))["suspended_by"] == "agent"
    assert (await comes_to(client, runs["waiting"], "suspended"))["suspended_by"] == "agent"
    refused = await client.post(f"/v1/runs/{runs['gated']['id']}/resume", json={})
    assert (refused.status_code, "is suspended" in refused.text) == (409, True)
    before = engine.witness()
    await asyncio.sleep(0.5)
    assert engine.witness() == before
    await do(client, runs["gated"], "suspend")  # now it is held for its own sake, whatever becomes of its agent
    await apply_agent(client, "halted", limits={"concurrentRuns": 1}, **STEPS)
    others = [run for place, run in runs.items() if place != "gated"]
    assert {run["state"] for run in await all_end(client, others)} == {"completed"}
    assert (await look(client, runs["gated"]))["state"] == "suspended"
    await do(client, runs["gated"], "resume")
    assert (await all_end(client, [runs["gated"]]))[0]["state"] == "completed"
    for place, run in runs.items():
        assert told(engine, run) == (["a", "b", "c"] if place == "running" else ["a", "b"])
    await equal(client, *runs.values())


async def test_the_runs_of_a_suspended_tenant_stand_still_and_go_on_when_it_does(engine: Engine, client: httpx2.AsyncClient) -> None:
    runs = await at_all_places(engine, client, "stopped")
    await apply_agent(client, "caller", tools=[*TOOLS, {"agent": "called"}], **STEPS)
    await apply_agent(client, "called", **STEPS)
    late = await start(client, "caller", [pay("a", 0.5), ["call", "called", [pay("c")]], pay("b")])
    await begun(engine, late, "a")
    await apply(client, tenant(suspend=True))
    for answer in (
        await client.post("/v1/agents/stopped/runs", json={"input": []}),
        await client.post(f"/v1/sessions/{runs['waiting']['session_id']}/events", json={"type": "user.message", "content": "hello"}),
    ):
        assert (answer.status_code, "the tenant is suspended" in answer.text) == (409, True)
    for place in ("running", "gated", "waiting"):
        assert (await comes_to(client, runs[place], "suspended"))["suspended_by"] == "tenant", place
    assert (await comes_to(client, late, "suspended"))["suspended_by"] == "tenant"
    refused = await client.post(f"/v1/runs/{runs['gated']['id']}/resume", json={})
    assert (refused.status_code, "is suspended" in refused.text) == (409, True)
    before = engine.witness()
    await asyncio.sleep(0.5)
    assert engine.witness() == before
    await do(client, runs["gated"], "suspend")  # now it is held for its own sake, whatever becomes of the tenant
    await apply(client, tenant())
    others = [late, *(run for place, run in runs.items() if place != "gated")]
    assert {run["state"] for run in await all_end(client, others)} == {"completed"}
    assert (await look(client, runs["gated"]))["state"] == "suspended"
    await do(client, runs["gated"], "resume")
    assert (await all_end(client, [runs["gated"]]))[0]["state"] == "completed"
    for place, run in runs.items():
        assert told(engine, run) == (["a", "b", "c"] if place == "running" else ["a", "b"])
    await equal(client, late, *runs.values())


async def test_a_run_held_within_an_unsafe_call_is_not_gone_on_with_blindly(engine: Engine, client: httpx2.AsyncClient) -> None:
    await apply_agent(client, "halfway", **STEPS)
    run = await start(client, "halfway", [["tool", "witness_unsafe", "once", 1.0], pay("after")])
    await begun(engine, run, "once")
    await do(client, run, "suspend")
    await comes_to(client, run, "suspended")
    await do(client, run, "resume")
    await comes_to(client, run, "needs_review")
    assert told(engine, run, phase="begin") == ["once"]
    await settle(client, run, "retry")
    assert (await all_end(client, [run]))[0]["output"] == ["once", "after"]
    assert told(engine, run, phase="begin") == ["once", "once", "after"]
    await equal(client, run)


async def test_what_is_not_worked_on_is_canceled_at_once_wherever_it_is(engine: Engine, client: httpx2.AsyncClient) -> None:
    runs = await at_all_places(engine, client, "dropped")
    await apply_agent(client, "asks", **STEPS)
    runs["asking"] = await start(client, "asks", [["ask", "What?"], pay("b")])
    runs["later"] = await start(client, "asks", [pay("b")], start_at="2999-01-01T00:00:00Z")
    runs["held"] = await start(client, "asks", [["sleep", 600], pay("b")])
    for place in ("asking", "held"):
        await comes_to(client, runs[place], "waiting")
    await do(client, runs["held"], "suspend")
    (wait,) = (await look(client, runs["asking"]))["waits"]
    last = await start(client, "dropped", [pay("last")])
    for place in ("behind", "waiting", "gated", "asking", "later", "held"):
        canceled = await do(client, runs[place], "cancel")
        assert (canceled["state"], canceled["waits"], canceled["error"]) == ("canceled", [], None), place
    answered = await client.post(f"/v1/approvals/{wait['key']}/decide", json={"decision": "answer", "answer": 1})
    assert (answered.status_code, "canceled" in answered.text) == (409, True)
    for verb in ("suspend", "cancel"):
        assert (await do(client, runs["held"], verb))["state"] == "canceled"
    await do(client, runs["held"], "resume", status=409)
    assert (await all_end(client, [runs["running"], last]))[1]["output"] == ["last"], "the slot of a canceled run is not free"
    for place in ("behind", "gated", "asking", "later", "held"):
        assert "b" not in told(engine, runs[place]), place
        assert (await types(engine, runs[place]))[-1] == "run.canceled"
