"""Who may start a run, of which revision, in which session, and how long one may wait for it."""

import asyncio
import time
from typing import Any

import httpx2
import pytest

from api.keys import Keys
from api.problem import problem
from hansa import ids
from samples import agent

WAITS = '#script [{"text": "at last", "delay": 2.5}]'


@pytest.fixture
async def name(api: httpx2.AsyncClient) -> str:
    """An agent of one's own."""
    name = f"b-{ids.new_id().hex[-8:]}"
    await apply(api, agent(name))
    return name


async def apply(api: httpx2.AsyncClient, manifest: dict[str, Any], **options: Any) -> None:
    answer = await api.post("/v1/objects:apply", json={"objects": [{"manifest": manifest}]}, **options)
    assert answer.json()["failed"] == 0, answer.text


def of_cluster(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


async def test_a_cordoned_region_takes_no_new_runs_for_a_while(api: httpx2.AsyncClient, name: str) -> None:
    session = (await api.post("/v1/sessions", json={"agent": name})).json()["id"]
    await apply(api, of_cluster("Region", "local", cordoned=True))
    try:
        refused = [
            await api.post(f"/v1/agents/{name}/runs", json={"input": 1}),
            await api.post(f"/v1/sessions/{session}/events", json={"type": "user.message", "content": 1}),
        ]
    finally:
        await apply(api, of_cluster("Region", "local"))
    for answer in refused:
        found = problem(answer, 503, "unavailable")
        assert (found["retryable"], int(answer.headers["retry-after"])) == (True, 30)
        assert "cordoned" in found["detail"]
    assert (await api.post(f"/v1/agents/{name}/runs", json={"input": 1})).status_code == 202


async def test_an_unknown_region_can_not_be_applied(api: httpx2.AsyncClient) -> None:
    answer = await api.post("/v1/objects:apply", json={"objects": [{"manifest": of_cluster("Region", "atlantis")}]})
    assert "atlantis" in answer.json()["results"][0]["errors"][0]["message"]
    problem(await api.get("/v1/objects/Region/atlantis"), 404, "not_found")


async def test_only_a_platform_admin_applies_regions_and_tenants(api: httpx2.AsyncClient, keys: Keys) -> None:
    objects = [{"manifest": of_cluster("Region", "local", cordoned=True)}, {"manifest": of_cluster("Tenant", "default", suspend=True)}]
    answer = await api.post("/v1/objects:apply", json={"objects": objects}, headers=keys.of_role["developer"])
    assert [each["errors"][0]["code"] for each in answer.json()["results"]] == ["forbidden", "forbidden"]
    assert all("platform:write" in each["errors"][0]["message"] for each in answer.json()["results"])


async def test_a_suspended_tenant_starts_nothing_and_others_go_on(api: httpx2.AsyncClient, other: httpx2.AsyncClient, name: str) -> None:
    await apply(api, of_cluster("Tenant", "other", suspend=True))
    try:
        found = problem(await other.post("/v1/agents/echo/runs", json={"input": 1}), 409, "conflict")
        assert (await api.post(f"/v1/agents/{name}/runs", json={"input": 1})).status_code == 202
    finally:
        await apply(api, of_cluster("Tenant", "other"))
    assert "tenant is suspended" in found["detail"]
    assert (await other.post("/v1/agents/echo/runs", json={"input": 1})).status_code == 202


async def test_a_suspended_agent_starts_nothing(api: httpx2.AsyncClient, name: str) -> None:
    session = (await api.post("/v1/sessions", json={"agent": name})).json()["id"]
    await apply(api, agent(name, suspend=True))
    for path, body in (
        (f"/v1/agents/{name}/runs", {"input": 1}),
        (f"/v1/sessions/{session}/events", {"type": "user.message", "content": 1}),
    ):
        found = problem(await api.post(path, json=body), 409, "conflict")
        assert "suspended" in found["detail"]
        assert "None" not in found["detail"]
    await apply(api, agent(name))
    assert (await api.post(f"/v1/agents/{name}/runs", json={"input": 1})).status_code == 202


async def test_a_session_takes_the_newest_revision_and_keeps_it_until_another_is_asked_for(api: httpx2.AsyncClient, name: str) -> None:
    first = (await api.post(f"/v1/agents/{name}/runs", json={"input": 1})).json()
    await apply(api, agent(name, description="two"))
    session = {"session_id": first["session_id"]}
    later = (await api.post(f"/v1/agents/{name}/runs", json={"input": 2, **session})).json()
    elsewhere = (await api.post(f"/v1/agents/{name}/runs", json={"input": 2})).json()
    asked = (await api.post(f"/v1/agents/{name}/runs", params={"wait": 10}, json={"input": 3, "revision": 2, **session})).json()
    assert [first["revision"], later["revision"], elsewhere["revision"], asked["revision"]] == [1, 1, 2, 2], "a session keeps its revision"
    assert (asked["state"], (await api.get(f"/v1/runs/{first['id']}")).json()["revision"]) == ("completed", 1)
    found = problem(await api.post(f"/v1/agents/{name}/runs", json={"input": 1, "revision": 3}), 404, "not_found")
    assert "revision 3" in found["detail"]


async def test_a_session_belongs_to_one_agent(api: httpx2.AsyncClient, name: str, echo: str) -> None:
    session = (await api.post("/v1/sessions", json={"agent": echo})).json()["id"]
    found = problem(await api.post(f"/v1/agents/{name}/runs", json={"input": 1, "session_id": session}), 409, "conflict")
    assert "'echo'" in found["detail"]
    assert name in found["detail"]


async def test_a_session_is_opened_with_an_agent_that_is_there(api: httpx2.AsyncClient) -> None:
    problem(await api.post("/v1/sessions", json={"agent": "nobody"}), 404, "not_found")
    problem(await api.post("/v1/agents/nobody/runs", json={"input": 1}), 404, "not_found")


async def test_a_session_of_a_deleted_agent_can_be_read_and_starts_nothing(api: httpx2.AsyncClient, name: str) -> None:
    run = (await api.post(f"/v1/agents/{name}/runs", params={"wait": 10}, json={"input": 1})).json()
    assert (await api.delete(f"/v1/agents/{name}")).status_code == 204
    path = f"/v1/sessions/{run['session_id']}"
    assert (await api.get(path)).json()["last_seq"] == 4
    found = problem(await api.post(f"{path}/events", json={"type": "user.message", "content": 1}), 404, "not_found")
    assert "None" not in found["detail"]


async def test_runs_of_a_session_are_done_one_after_the_other(api: httpx2.AsyncClient, name: str) -> None:
    session = (await api.post("/v1/sessions", json={"agent": name})).json()
    assert (session["last_seq"], session["active_run"]) == (0, None)
    path = f"/v1/sessions/{session['id']}"
    told = await asyncio.gather(*(api.post(f"{path}/events", json={"type": "user.message", "content": n}) for n in range(4)))
    ids_told = {answer.json()["id"] for answer in told}
    last = max((answer.json() for answer in told), key=lambda run: run["created_at"])
    for _ in range(200):
        if (await api.get(path)).json()["active_run"] is None:
            break
        await asyncio.sleep(0.05)
    events = (await api.get(f"{path}/events", params={"limit": 200})).json()["data"]
    assert [event["seq"] for event in events] == list(range(1, 17))
    inner = [event for event in events if event["type"] in ("run.started", "run.completed")]
    assert [event["type"] for event in inner] == ["run.started", "run.completed"] * 4
    assert {event["run_id"] for event in events} == ids_told
    assert last["id"] in ids_told


async def test_waiting_ends_with_the_run_or_with_the_time(api: httpx2.AsyncClient, name: str) -> None:
    start = time.monotonic()
    cut = await api.post(f"/v1/agents/{name}/runs", params={"wait": 1}, json={"input": WAITS})
    assert 0.9 < time.monotonic() - start < 2.4
    assert (cut.status_code, cut.json()["state"]) == (202, "queued")
    ended = await api.post(f"/v1/agents/{name}/runs", params={"wait": 60}, json={"input": WAITS})
    assert time.monotonic() - start < 15
    assert (ended.status_code, ended.json()["output"]) == (200, "at last")
    assert ended.headers["location"] == f"/v1/runs/{ended.json()['id']}"
    assert (await api.get(cut.headers["location"])).json()["state"] == "completed"


async def test_not_waiting_answers_at_once(api: httpx2.AsyncClient, name: str) -> None:
    for params in ({}, {"wait": 0}):
        answer = await api.post(f"/v1/agents/{name}/runs", params=params, json={"input": 1})
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")


@pytest.mark.parametrize("wait", ["61", "-1", "1.5", "soon", ""])
async def test_a_wait_out_of_range_is_refused_and_starts_nothing(api: httpx2.AsyncClient, name: str, wait: str) -> None:
    found = problem(await api.post(f"/v1/agents/{name}/runs", params={"wait": wait}, json={"input": 1}), 422, "invalid")
    assert "0 to 60" in found["detail"]
    assert (await api.get("/v1/runs", params={"agent": name})).json()["data"] == []


async def test_a_client_that_stops_waiting_cancels_nothing(api: httpx2.AsyncClient, name: str) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        await api.post(f"/v1/agents/{name}/runs", params={"wait": 30}, json={"input": WAITS}, timeout=0.7)
    (run,) = (await api.get("/v1/runs", params={"agent": name})).json()["data"]
    for _ in range(100):
        run = (await api.get(f"/v1/runs/{run['id']}")).json()
        if run["state"] not in ("queued", "running"):
            break
        await asyncio.sleep(0.1)
    assert (run["state"], run["output"]) == ("completed", "at last")


async def test_a_running_run_is_canceled_and_an_ended_one_stays(api: httpx2.AsyncClient, name: str) -> None:
    slow = '#script [{"text": "never", "delay": 60}]'
    run = (await api.post(f"/v1/agents/{name}/runs", json={"input": slow})).json()
    while (await api.get(f"/v1/runs/{run['id']}")).json()["state"] == "queued":
        await asyncio.sleep(0.02)
    assert (await api.post(f"/v1/runs/{run['id']}/cancel")).status_code == 202
    while (await api.get(f"/v1/runs/{run['id']}")).json()["state"] == "running":
        await asyncio.sleep(0.02)
    ended = (await api.get(f"/v1/runs/{run['id']}")).json()
    assert ended["state"] == "canceled"
    assert (await api.post(f"/v1/runs/{run['id']}/cancel")).json() == ended


async def test_an_id_that_can_be_none_is_refused_as_such(api: httpx2.AsyncClient) -> None:
    for path in ("/v1/runs/1", "/v1/sessions/x/events", "/v1/runs/x/replay", "/v1/sessions/x/events/stream"):
        assert "UUID" in problem(await api.get(path), 422, "invalid")["detail"]
