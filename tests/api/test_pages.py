"""Lists: pages that hold every item once, and cursors that are good for one query of one tenant."""

import asyncio
from typing import Any

import httpx2
import pytest

from api.problem import problem
from hansa import ids
from samples import SCRIPTED, agent

LISTS = ("/v1/agents", "/v1/agents/echo/revisions", "/v1/objects", "/v1/runs", "/v1/sessions", "/v1/tools", "/v1/models", "/v1/plugins")


async def walk(api: httpx2.AsyncClient, path: str, **query: Any) -> list[dict[str, Any]]:
    """Every item of a list, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        page = (await api.get(path, params=query)).json()
        assert len(page["data"]) <= query["limit"]
        assert page["has_more"] == (page["next"] is not None)
        found += page["data"]
        if not page["has_more"]:
            return found
        assert len(page["data"]) == query["limit"]
        query["after"] = page["next"]


@pytest.fixture
async def filled(api: httpx2.AsyncClient, echo: str) -> None:
    """At least three of everything."""
    models = {**SCRIPTED, "metadata": {"name": "page"}, "spec": {"plugin": "scripted", "models": [{"name": "a"}, {"name": "b"}]}}
    assert (await api.post("/v1/objects:apply", json={"objects": [{"manifest": models}]})).json()["failed"] == 0
    objects = [{"manifest": agent(f"page-{number}", description=str(ids.new_id()))} for number in range(3)]
    versions = [{"manifest": agent("echo", description=str(number))} for number in range(3)]
    for batch in ([*objects, versions[0]], [versions[1]], [versions[2]], [{"manifest": agent("echo")}]):
        assert (await api.post("/v1/objects:apply", json={"objects": batch})).json()["failed"] == 0
    for _ in range(3):
        await api.post("/v1/agents/echo/runs", json={"input": 1})


@pytest.mark.parametrize("path", LISTS)
async def test_pages_of_any_size_hold_the_same_items_in_the_same_order(api: httpx2.AsyncClient, filled: None, path: str) -> None:
    whole = await walk(api, path, limit=200)
    names = [item.get("id") or (item.get("kind"), item.get("name"), item.get("ref"), item.get("revision")) for item in whole]
    assert len(set(names)) == len(names)
    start = max(0, len(whole) - 7)
    small = await walk(api, path, limit=3) if not start else (await api.get(path, params={"limit": 3})).json()["data"]
    assert [_still(item) for item in small] == [_still(item) for item in whole[: len(small)]]


def _still(item: dict[str, Any]) -> dict[str, Any]:
    """An item without what a worker changes meanwhile."""
    return {name: item[name] for name in ("id", "kind", "name", "ref", "revision", "agent", "manifest") if name in item}


async def test_a_walk_meets_every_old_item_once_while_new_ones_come(api: httpx2.AsyncClient, echo: str) -> None:
    name = f"walk-{ids.new_id().hex[-6:]}"
    await api.post("/v1/objects:apply", json={"objects": [{"manifest": agent(name)}]})
    old = [(await api.post(f"/v1/agents/{name}/runs", json={"input": number})).json()["id"] for number in range(20)]
    stop = asyncio.Event()
    new: list[str] = []

    async def insert() -> None:
        while not stop.is_set():
            new.append((await api.post(f"/v1/agents/{name}/runs", json={"input": "new"})).json()["id"])

    inserting = asyncio.create_task(insert())
    while len(new) < 3:
        await asyncio.sleep(0.01)
    met = [run["id"] for run in await walk(api, "/v1/runs", agent=name, limit=2)]
    stop.set()
    await inserting
    assert len(set(met)) == len(met)
    assert [each for each in met if each in old] == list(reversed(old))
    assert met == sorted(met, reverse=True)
    assert len(new) > 3, "nothing came meanwhile, so nothing was tested"


async def test_events_are_walked_by_their_numbers(api: httpx2.AsyncClient, echo: str) -> None:
    run = (await api.post("/v1/agents/echo/runs", params={"wait": 10}, json={"input": 1})).json()
    events = await walk(api, f"/v1/sessions/{run['session_id']}/events", limit=1)
    assert [event["seq"] for event in events] == [1, 2, 3, 4]
    rest = (await api.get(f"/v1/sessions/{run['session_id']}/events", params={"after": 3})).json()
    assert ([event["seq"] for event in rest["data"]], rest["has_more"]) == ([4], False)


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", ["0", "201", "abc", "-1", "1.5", "", "٣", "1" * 40])
async def test_a_page_size_out_of_range_is_refused(api: httpx2.AsyncClient, echo: str, path: str, limit: str) -> None:
    found = problem(await api.get(path, params={"limit": limit}), 422, "invalid")
    assert found["detail"].startswith("limit=")
    assert "to 200" in found["detail"]


@pytest.mark.parametrize("path", [*LISTS, "/v1/agents/echo", "/v1/objects/Agent/echo"])
async def test_an_unknown_query_parameter_is_refused_with_the_known_ones(api: httpx2.AsyncClient, echo: str, path: str) -> None:
    found = problem(await api.get(path, params={"limits": "5"}), 422, "invalid")
    assert found["detail"].startswith("unknown query parameter 'limits'; known here: ")
    assert ("limit" in found["detail"].split("here:")[1]) == (path in LISTS)


async def test_a_query_parameter_given_twice_is_refused(api: httpx2.AsyncClient) -> None:
    assert "'state'" in problem(await api.get("/v1/runs?state=queued&state=failed"), 422, "invalid")["detail"]


@pytest.mark.parametrize("path", LISTS)
async def test_a_cursor_is_good_for_its_own_query_only(api: httpx2.AsyncClient, other: httpx2.AsyncClient, filled: None, path: str) -> None:
    page = (await api.get(path, params={"limit": 1})).json()
    cursor = page["next"]
    assert (await api.get(path, params={"limit": 7, "after": cursor})).status_code == 200
    flipped = cursor[:5] + ("A" if cursor[5] != "A" else "B") + cursor[6:]
    for wrong in (flipped, cursor[:-4], cursor + "!", cursor + "AAAA", "x", "", "null", "W10", "0", "%", "ä", "[" * 2000):
        found = problem(await api.get(path, params={"limit": 1, "after": wrong}), 400, "malformed")
        assert found["detail"] == "the cursor is not valid for this query"
    problem(await other.get(path, params={"limit": 1, "after": cursor}), 400, "malformed")
    elsewhere = "/v1/runs" if path != "/v1/runs" else "/v1/sessions"
    problem(await api.get(elsewhere, params={"after": cursor}), 400, "malformed")


async def test_a_cursor_holds_its_filters(api: httpx2.AsyncClient, filled: None) -> None:
    cursor = (await api.get("/v1/runs", params={"agent": "echo", "limit": 1})).json()["next"]
    for query in ({}, {"agent": "page-1"}, {"agent": "echo", "state": "completed"}):
        problem(await api.get("/v1/runs", params={**query, "after": cursor}), 400, "malformed")


async def test_lists_are_filtered(api: httpx2.AsyncClient, echo: str) -> None:
    run = (await api.post("/v1/agents/echo/runs", params={"wait": 10}, json={"input": 1})).json()
    of_session = (await api.get("/v1/runs", params={"session_id": run["session_id"]})).json()["data"]
    assert [each["id"] for each in of_session] == [run["id"]]
    assert {each["state"] for each in (await api.get("/v1/runs", params={"state": "completed"})).json()["data"]} == {"completed"}
    assert (await api.get("/v1/runs", params={"agent": "nobody"})).json() == {"data": [], "has_more": False, "next": None}
    assert {each["agent"] for each in (await api.get("/v1/sessions", params={"agent": "echo"})).json()["data"]} == {"echo"}
    assert {each["kind"] for each in (await api.get("/v1/objects", params={"kind": "Agent"})).json()["data"]} == {"Agent"}


async def test_a_filter_that_can_match_nothing_is_refused(api: httpx2.AsyncClient) -> None:
    assert "completed" in problem(await api.get("/v1/runs", params={"state": "done"}), 422, "invalid")["detail"]
    assert "session_id" in problem(await api.get("/v1/runs", params={"session_id": "1"}), 422, "invalid")["detail"]
    assert "ModelProvider" in problem(await api.get("/v1/objects", params={"kind": "agent"}), 404, "not_found")["detail"]
