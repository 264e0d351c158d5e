"""Replays: equal for what has happened, and named where the log or the runtime says something else. Nothing outside is touched."""

import asyncio
import json
from typing import Any

import httpx2
import pytest

from runs.engine import Engine, apply_agent, call, ended, script, start, until
from stack import Process

pytestmark = pytest.mark.usefixtures("steady")


async def replay(client: httpx2.AsyncClient, run_id: str) -> dict[str, Any]:
    answer = await client.get(f"/v1/runs/{run_id}/replay")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def tamper(engine: Engine, run_id: str, type_: str, step: str, **changes: Any) -> None:
    """Change recorded data behind everyone's back."""
    (row,) = await engine.fetch("SELECT data FROM hansa.events WHERE run_id = $1 AND type = $2 AND step = $3", run_id, type_, step)
    connection = await engine.admin()
    try:
        sql = "UPDATE hansa.events SET data = $4 WHERE run_id = $1 AND type = $2 AND step = $3"
        await connection.execute(sql, run_id, type_, step, json.dumps({**row["data"], **changes}))
    finally:
        await connection.close()


async def test_a_completed_run_replays_equal_and_touches_nothing(engine: Engine, client: httpx2.AsyncClient) -> None:
    await apply_agent(client, "replay")
    run = await start(client, "replay", script(call("read", "look"), call("unsafe", "send"), {"text": "done"}), wait=20)
    assert run["state"] == "completed"
    before = (engine.witness(), await engine.facts([run["id"]]))
    shown = await replay(client, run["id"])
    assert (shown["equal"], shown["steps"], shown["diverged_at"]) == (True, 5, None)
    assert shown["digest"] == shown["recorded_digest"] != ""
    assert (engine.witness(), await engine.facts([run["id"]])) == before


@pytest.mark.parametrize(
    ("type_", "step", "changes", "named"),
    [
        ("tool.called", "2", {"arguments": {"mark": "other"}}, "2"),
        ("tool.completed", "2", {"name": "witness_unsafe"}, "2"),
        ("tool.completed", "2", {"content": "something else"}, "3"),
        ("model.completed", "1", {"tool_calls": []}, "end"),
        ("model.completed", "3", {"request_digest": "0" * 32}, "3"),
        ("model.completed", "3", {"text": "not what was said"}, "end"),
    ],
)
async def test_a_changed_log_is_named_by_its_step(
    engine: Engine, client: httpx2.AsyncClient, type_: str, step: str, changes: dict[str, Any], named: str
) -> None:
    await apply_agent(client, "replay")
    run = await start(client, "replay", script(call("keyed", "pay"), {"text": "done"}), wait=20)
    assert (await replay(client, run["id"]))["equal"]
    await tamper(engine, run["id"], type_, step, **changes)
    shown = await replay(client, run["id"])
    assert (shown["equal"], shown["diverged_at"]["step"]) == (False, named), shown


@pytest.mark.parametrize(
    ("does", "named"),
    [("other call", "2"), ("other end", "end"), ("fewer steps", "2"), ("other error", "end"), ("other kind of step", "2")],
)
async def test_a_runtime_that_does_something_else_is_found_out(engine: Engine, client: httpx2.AsyncClient, does: str, named: str) -> None:
    await apply_agent(client, "fickle", runtime={"name": "fickle"})
    run = await start(client, "fickle", does, wait=20)
    assert run["state"] == ("failed" if does == "other error" else "completed"), run
    shown = await replay(client, run["id"])
    assert (shown["equal"], shown["diverged_at"]["step"]) == (False, named), shown


async def test_a_constant_runtime_replays_equal(client: httpx2.AsyncClient) -> None:
    await apply_agent(client, "fickle", runtime={"name": "fickle"})
    run = await start(client, "fickle", "always the same", wait=20)
    assert (await replay(client, run["id"]))["equal"]


async def test_the_replay_of_a_canceled_run_asks_no_model_and_calls_no_tool(engine: Engine, client: httpx2.AsyncClient) -> None:
    await apply_agent(client, "replay")
    for name in ("keyed", "read"):
        run = await start(client, "replay", script(call(name, "pay", seconds=20), {"text": "done"}))
        await until(lambda run=run: [line for line in engine.witness() if line["key"].startswith(run["id"])], "the call is begun")
        await client.post(f"/v1/runs/{run['id']}/cancel")
        assert (await ended(client, run["id"]))["state"] == "canceled"
        before = engine.witness()
        assert (await asyncio.wait_for(replay(client, run["id"]), 5))["equal"]
        assert engine.witness() == before
    thinking = await start(client, "replay", script({"text": "done", "delay": 20}))
    await until(lambda: client_state(client, thinking["id"], "running"), "it runs")
    await client.post(f"/v1/runs/{thinking['id']}/cancel")
    assert (await ended(client, thinking["id"]))["state"] == "canceled"
    assert (await asyncio.wait_for(replay(client, thinking["id"]), 5))["equal"]


async def client_state(client: httpx2.AsyncClient, run_id: str, state: str) -> bool:
    return (await client.get(f"/v1/runs/{run_id}")).json()["state"] == state


async def test_a_running_run_is_not_replayed(client: httpx2.AsyncClient) -> None:
    await apply_agent(client, "replay")
    run = await start(client, "replay", script({"text": "done", "delay": 20}))
    answer = await client.get(f"/v1/runs/{run['id']}/replay")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    await client.post(f"/v1/runs/{run['id']}/cancel")
    await ended(client, run["id"])


@pytest.mark.parametrize("breaks", ["not json", "surrogate", "raise"])
async def test_a_broken_runtime_ends_its_run_and_replays_equal(client: httpx2.AsyncClient, breaks: str) -> None:
    await apply_agent(client, "broken", runtime={"name": "broken"})
    run = await start(client, "broken", breaks, wait=20)
    assert (run["state"], run["error"]["code"]) == ("failed", "runtime_error")
    assert (await replay(client, run["id"]))["equal"]


async def test_an_output_is_kept_as_json_has_it(client: httpx2.AsyncClient) -> None:
    await apply_agent(client, "broken", runtime={"name": "broken"})
    run = await start(client, "broken", "tuples", wait=20)
    assert (run["state"], run["output"]) == ("completed", {"one": [2, 3]})
    assert (await replay(client, run["id"]))["equal"]


async def test_branches_replay_equal_whichever_was_faster(client: httpx2.AsyncClient, steady: Process) -> None:
    calls = [["witness_keyed", "slow", 0.3], ["witness_unsafe", "quick", 0.0], ["witness_read", "middling", 0.1]]
    await apply_agent(client, "fan", runtime={"name": "fan", "config": {"calls": calls}})
    run = await start(client, "fan", "go", wait=20)
    assert (run["state"], [content for content, _ in run["output"]]) == ("completed", ["slow", "quick", "middling"])
    assert (await replay(client, run["id"]))["equal"]
