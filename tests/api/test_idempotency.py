"""Idempotency keys: one request is done once, however often and however parallel it is sent."""

import asyncio
from typing import Any

import asyncpg
import httpx2
import pytest

from api.keys import Keys
from api.problem import problem
from hansa import ids
from hansa.tenants.service import DEFAULT_TENANT, tenant_id
from samples import agent
from stack import Process, Stack

MARKER = "idempotency-replayed"


def fresh() -> dict[str, str]:
    """A header with a key that nobody has used."""
    return {"idempotency-key": f"key {ids.new_id()}"}


async def runs_of(api: httpx2.AsyncClient, agent: str) -> int:
    """How many runs an agent has had (of the newest 200)."""
    return len((await api.get("/v1/runs", params={"agent": agent, "limit": 200})).json()["data"])


async def bodies_by_path(api: httpx2.AsyncClient) -> dict[str, Any]:
    """Every route that takes a POST, with a right body."""
    session = (await api.post("/v1/sessions", json={"agent": "echo"})).json()["id"]
    run = (await api.post("/v1/agents/echo/runs", json={"input": 1})).json()["id"]
    return {
        "/v1/agents/echo/runs": {"input": 1},
        "/v1/sessions": {"agent": "echo"},
        f"/v1/sessions/{session}/events": {"type": "user.message", "content": 1},
        f"/v1/runs/{run}/cancel": None,
        "/v1/objects:apply": {"objects": [{"manifest": agent("echo")}]},
    }


async def test_a_request_sent_again_gets_the_same_answer_with_a_marker(api: httpx2.AsyncClient, echo: str) -> None:
    for path, body in (await bodies_by_path(api)).items():
        headers = fresh()
        first, second, third = [await api.post(path, json=body, headers=headers) for _ in range(3)]
        assert first.is_success, first.text
        assert MARKER not in first.headers
        for again in (second, third):
            assert again.headers[MARKER] == "true"
            assert (again.status_code, again.content) == (first.status_code, first.content)
            assert again.headers.get("location") == first.headers.get("location")


async def test_another_body_under_the_same_key_is_refused_with_the_first_use(api: httpx2.AsyncClient, echo: str) -> None:
    for path, body in (await bodies_by_path(api)).items():
        if body is None:
            continue
        headers = fresh()
        first = await api.post(path, json=body, headers=headers)
        assert first.is_success, first.text
        second = await api.post(path, json={**body, **({"input": 2} if "input" in body else {}), **_other(body)}, headers=headers)
        found = problem(second, 422, "invalid")
        year = (await api.get("/v1/runs", params={"limit": 1})).json()["data"][0]["created_at"][:4]
        assert f"first used at {year}-" in found["detail"]


def _other(body: dict[str, Any]) -> dict[str, Any]:
    """A change that makes another right body."""
    if "content" in body:
        return {"content": 2}
    if "objects" in body:
        return {"objects": []}
    return {"agent": "nobody"} if "agent" in body else {}


async def test_the_same_key_is_another_one_on_another_route(api: httpx2.AsyncClient, echo: str) -> None:
    await api.post("/v1/objects:apply", json={"objects": [{"manifest": agent("echo-2")}]})
    headers = fresh()
    answers = [await api.post(f"/v1/agents/{name}/runs", json={"input": 1}, headers=headers) for name in ("echo", "echo-2")]
    answers.append(await api.post("/v1/sessions", json={"agent": "echo"}, headers=headers))
    assert [answer.status_code for answer in answers] == [202, 202, 201]
    assert not any(MARKER in answer.headers for answer in answers)


async def test_the_same_key_is_another_one_for_another_caller(
    api: httpx2.AsyncClient, other: httpx2.AsyncClient, echo: str, keys: Keys
) -> None:
    headers, body = fresh(), {"input": 1}
    colleague = {**headers, **keys.of_role["operator"]}
    answers = [
        await api.post("/v1/agents/echo/runs", json=body, headers=headers),
        await api.post("/v1/agents/echo/runs", json=body, headers=colleague),
        await other.post("/v1/agents/echo/runs", json=body, headers=headers),
    ]
    assert [answer.status_code for answer in answers] == [202] * 3, [answer.text for answer in answers]
    assert len({answer.json()["id"] for answer in answers}) == 3
    assert not any(MARKER in answer.headers for answer in answers)


async def test_waiting_is_no_part_of_the_request(api: httpx2.AsyncClient, echo: str) -> None:
    headers, body = fresh(), {"input": "patience"}
    first = await api.post("/v1/agents/echo/runs", json=body, headers=headers)
    waited = await api.post("/v1/agents/echo/runs", params={"wait": 10}, json=body, headers=headers)
    assert (first.status_code, waited.status_code) == (202, 200)
    assert first.json()["id"] == waited.json()["id"]
    assert (waited.json()["state"], waited.json()["output"]) == ("completed", "patience")
    assert MARKER not in first.headers
    assert waited.headers[MARKER] == "true"
    assert (await api.post("/v1/agents/echo/runs", json=body, headers=headers)).content == first.content


async def test_the_same_request_many_times_at_once_is_done_once(api: httpx2.AsyncClient, stack: Stack, control_plane: Process) -> None:
    await api.post("/v1/objects:apply", json={"objects": [{"manifest": agent("crowd")}]})
    headers, before = fresh(), await runs_of(api, "crowd")
    answers = await asyncio.gather(*(api.post("/v1/agents/crowd/runs", json={"input": 1}, headers=headers) for _ in range(24)))
    done = [answer for answer in answers if answer.status_code == 202]
    assert len({answer.content for answer in done}) == 1
    assert len([answer for answer in done if MARKER not in answer.headers]) == 1
    for answer in answers:
        if answer.status_code != 202:
            assert "being worked on" in problem(answer, 409, "key_in_flight")["detail"]
    assert await runs_of(api, "crowd") == before + 1


@pytest.mark.parametrize("path", ["/v1/agents/echo/runs", "/v1/sessions"])
async def test_a_request_that_is_being_worked_on_is_not_started_again(api: httpx2.AsyncClient, stack: Stack, echo: str, path: str) -> None:
    key = f"held {ids.new_id()}"
    body = {"input": 1} if path.endswith("runs") else {"agent": "echo"}
    caller = f"key:{stack.key.split('_')[2]}"
    scope = "\x1f".join((str(tenant_id(DEFAULT_TENANT)), caller, f"POST {path}", key))
    holder = await asyncpg.connect(stack.admin_url)
    try:
        async with holder.transaction():
            await holder.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", scope)
            held = await api.post(path, json=body, headers={"idempotency-key": key})
        assert "being worked on" in problem(held, 409, "key_in_flight")["detail"]
        assert int(held.headers["retry-after"]) >= 1
    finally:
        await holder.close()
    assert (await api.post(path, json=body, headers={"idempotency-key": key})).is_success


async def test_a_refused_request_leaves_its_key_unused(api: httpx2.AsyncClient) -> None:
    headers = fresh()
    problem(await api.post("/v1/agents/later/runs", json={"input": 1}, headers=headers), 404, "not_found")
    await api.post("/v1/objects:apply", json={"objects": [{"manifest": agent("later")}]})
    answer = await api.post("/v1/agents/later/runs", json={"input": 1}, headers=headers)
    assert (answer.status_code, MARKER in answer.headers) == (202, False)
    assert (await api.delete("/v1/agents/later")).status_code == 204


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "ä"])
async def test_a_key_that_can_be_none_is_refused(api: httpx2.AsyncClient, echo: str, key: str) -> None:
    answer = await api.post("/v1/agents/echo/runs", json={"input": 1}, headers=[(b"idempotency-key", key.encode())])
    assert "Idempotency-Key" in problem(answer, 422, "invalid")["detail"]
