"""A run from start to end over the real platform."""

import json
from typing import Any

import httpx2
import pytest

from samples import agent


async def test_a_run_is_durable_and_ends(api: httpx2.AsyncClient) -> None:
    applied = await api.post("/v1/objects:apply", json={"objects": [{"manifest": agent("echo")}]})
    assert applied.json()["failed"] == 0
    run = (await api.post("/v1/agents/echo/runs", params={"wait": 20}, json={"input": "hello"})).json()
    assert (run["state"], run["output"]) == ("completed", "hello")
    events = (await api.get(f"/v1/sessions/{run['session_id']}/events")).json()["data"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events] == ["run.queued", "run.started", "model.completed", "run.completed"]
    replay = (await api.get(f"/v1/runs/{run['id']}/replay")).json()
    assert replay["equal"], json.dumps(replay)


@pytest.mark.parametrize("name", ["clock", "files_list"])
async def test_a_run_replays_whatever_order_its_tools_give_their_keys_in(api: httpx2.AsyncClient, name: str) -> None:
    manifest = agent("keys", tools=[{"plugin": "tools", "allow": ["clock", "files_list"]}])
    await api.post("/v1/objects:apply", json={"objects": [{"manifest": manifest}]})
    turns: list[dict[str, Any]] = [{"tool_calls": [{"name": name, "arguments": {}}]}, {"text": "done"}]
    run = (await api.post("/v1/agents/keys/runs", params={"wait": 20}, json={"input": f"#script {json.dumps(turns)}"})).json()
    assert (run["state"], run["output"]) == ("completed", "done")
    replay = (await api.get(f"/v1/runs/{run['id']}/replay")).json()
    assert replay["equal"], json.dumps(replay)
    assert replay["steps"] == 3
