"""A tool's result whose keys are not in order is to a worker that takes the run over what it was to the first one."""

from collections.abc import Callable

import httpx2
import pytest

from hansa_tools.clock import clock
from runs.engine import Engine, apply_agent, call, ended, script, start, until
from stack import Process

TOOLS = [{"plugin": "witness"}, {"plugin": "tools", "allow": ["clock"]}]
LOOK = {"tool_calls": [{"name": "clock", "arguments": {"zone": "Asia/Tokyo"}}]}


@pytest.mark.timeout(60)
async def test_a_result_with_unsorted_keys_is_the_same_after_a_take_over(
    engine: Engine, client: httpx2.AsyncClient, worker: Callable[..., Process]
) -> None:
    await apply_agent(client, "keys", tools=TOOLS)
    first = worker()
    run = await start(client, "keys", script(LOOK, LOOK, call("read", "wait", rest=3.0), {"text": "done"}))
    await until(
        lambda: [line for line in engine.witness() if line["key"].startswith(run["id"]) and line["phase"] == "effect"],
        "two results of the clock and the model's answers to them are recorded",
    )
    first.kill()
    worker()
    body = await ended(client, run["id"])
    assert (body["state"], body["output"]) == ("completed", "done"), body["error"]
    runs, events = await engine.facts([run["id"]])
    assert runs[0]["epoch"] == 2, "the run was not taken over"
    kinds = [event["type"] for event in events]
    assert kinds.count("model.completed") == 4, "an answer that is recorded was asked for again"
    told = [event["data"]["content"] for event in events if event["type"] == "tool.completed" and event["data"]["name"] == clock.name]
    assert [set(each) for each in told] == [{"zone", "time", "weekday", "abbreviation"}] * 2
    replay = (await client.get(f"/v1/runs/{run['id']}/replay")).json()
    assert replay["equal"], replay
