"""Who started a run stands on it and in its first event, and for whom: also of the agents that it calls. Naming an end user needs a
permission.
"""

import json
from typing import Any

import httpx2
import pytest

from api.keys import issue
from api.problem import problem
from samples import agent
from stack import Stack

Json = dict[str, Any]
CALLS = "#script " + json.dumps([{"tool_calls": [{"name": "leaf", "arguments": {"input": "hi"}}]}, {"text": "done"}])
FOR = "hansa-on-behalf-of"


@pytest.fixture
async def stem(api: httpx2.AsyncClient) -> str:
    """The name of an agent that calls another one, `leaf`."""
    manifests = [agent("leaf"), agent("stem", tools=[{"agent": "leaf"}])]
    applied = await api.post("/v1/objects:apply", json={"objects": [{"manifest": each} for each in manifests]})
    assert applied.json()["failed"] == 0, applied.text
    return "stem"


async def started(api: httpx2.AsyncClient, name: str, said: str, user: str) -> Json:
    headers = [(FOR.encode(), user.encode())]
    answer = await api.post(f"/v1/agents/{name}/runs", params={"wait": 10}, json={"input": said}, headers=headers)
    assert answer.json()["state"] == "completed", answer.text
    return answer.json()


async def first_event(api: httpx2.AsyncClient, run: Json) -> Json:
    return (await api.get(f"/v1/sessions/{run['session_id']}/events")).json()["data"][0]["data"]


async def test_naming_an_end_user_needs_the_permission(api: httpx2.AsyncClient, stack: Stack, echo: str) -> None:
    operator = await issue(stack, "default", name="an operator", roles=["operator"])
    refused = await api.post(f"/v1/agents/{echo}/runs", json={"input": "hi"}, headers={**operator, FOR: "alice"})
    assert "users:act" in problem(refused, 403, "forbidden")["detail"]
    trusted = await issue(stack, "default", name="a trusted service", roles=["operator", "delegate"])
    assert (await api.post(f"/v1/agents/{echo}/runs", json={"input": "hi"}, headers={**trusted, FOR: "alice"})).status_code == 202


@pytest.mark.parametrize("name", [b"", b"a" * 201, b"\xff\xfe", "a\u00adb".encode()], ids=str)
async def test_what_is_no_name_is_refused(api: httpx2.AsyncClient, name: bytes) -> None:
    answer = await api.get("/v1/whoami", headers=[(FOR.encode(), name)])
    assert "Hansa-On-Behalf-Of" in problem(answer, 422, "invalid")["detail"]


async def test_a_run_says_who_started_it_and_for_whom(api: httpx2.AsyncClient, stem: str) -> None:
    run = await started(api, stem, CALLS, "zoë@acme.example")
    me = (await api.get("/v1/whoami")).json()["name"]
    by = {"name": me, "kind": "key", "on_behalf_of": "zoë@acme.example", "may": ["runs:start"]}
    assert run["started_by"] == by
    assert (await first_event(api, run))["by"] == by
    children = (await api.get("/v1/runs", params={"agent": "leaf"})).json()["data"]
    (child,) = [each for each in children if each["parent_run"] == run["id"]]
    assert child["started_by"]["name"] == "agent:stem"
    assert (child["started_by"]["kind"], child["started_by"]["on_behalf_of"]) == ("agent", "zoë@acme.example")


async def test_a_fork_is_its_forkers(api: httpx2.AsyncClient, echo: str) -> None:
    run = await started(api, echo, "hi", "alice")
    fork = (await api.post(f"/v1/runs/{run['id']}/fork", json={"at": 1})).json()
    assert "on_behalf_of" not in fork["started_by"]
    assert (await first_event(api, fork))["by"] == fork["started_by"]
