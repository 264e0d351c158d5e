"""A run from start to end over the real platform."""

import json

import httpx2

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
