"""Sessions keep the revision that they were begun with, whatever is applied meanwhile; runs under way are on one from start to end."""

import asyncio
from typing import Any

import httpx2
import pytest

from runs.checks import QUICK, decided, put, rollout, status
from runs.engine import Engine, call, ended, script, start
from samples import SCRIPTED, agent

pytestmark = pytest.mark.usefixtures("steady")


async def opened(client: httpx2.AsyncClient, name: str) -> dict[str, Any]:
    answer = await client.post("/v1/sessions", json={"agent": name})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def said(client: httpx2.AsyncClient, session: str, content: Any) -> dict[str, Any]:
    answer = await client.post(f"/v1/sessions/{session}/events", json={"type": "user.message", "content": content})
    assert answer.status_code == 202, answer.text
    return await ended(client, answer.json()["id"])


def strays(runs: list[dict[str, Any]], sessions: dict[str, int]) -> list[str]:
    """Runs that are on another revision than their session was begun with, and runs that failed."""
    wrong = [f"run {run['id']} is on {run['revision']}" for run in runs if run["revision"] != sessions[run["session_id"]]]
    return wrong + [f"run {run['id']} is {run['state']}" for run in runs if run["state"] != "completed"]


async def test_later_runs_of_a_session_are_on_the_revision_that_it_was_begun_with(client: httpx2.AsyncClient) -> None:
    await put(client, "revised-kept")
    run, empty = await start(client, "revised-kept", "hello", wait=20), await opened(client, "revised-kept")
    await put(client, "revised-kept", description="second")
    assert (await said(client, run["session_id"], "again"))["revision"] == 1
    assert empty["revision"] == 1
    assert (await said(client, empty["id"], "late"))["revision"] == 1, "an empty session has begun too"
    assert (await start(client, "revised-kept", "hello"))["revision"] == 2


async def test_a_run_that_names_a_revision_takes_its_session_there(client: httpx2.AsyncClient) -> None:
    await put(client, "revised-moved")
    run = await start(client, "revised-moved", "hello", wait=20)
    await put(client, "revised-moved", description="second")
    assert (await start(client, "revised-moved", "on", session_id=run["session_id"], revision=2, wait=20))["revision"] == 2
    assert (await said(client, run["session_id"], "again"))["revision"] == 2
    assert (await start(client, "revised-moved", "hello", revision=1))["revision"] == 1


async def test_a_fork_and_its_later_runs_are_on_the_revision_of_the_run_that_was_forked(client: httpx2.AsyncClient) -> None:
    await put(client, "revised-forking")
    run = await start(client, "revised-forking", "hello", wait=20)
    await put(client, "revised-forking", description="second")
    fork = (await client.post(f"/v1/runs/{run['id']}/fork", json={"at": 1})).json()
    assert (await ended(client, fork["id"]))["revision"] == 1
    assert (await said(client, fork["session_id"], "again"))["revision"] == 1


async def test_an_imported_session_goes_on_with_its_revision(client: httpx2.AsyncClient) -> None:
    await put(client, "revised-travelling")
    await put(client, "revised-travelling", description="second")
    run, empty = await start(client, "revised-travelling", "hello", wait=20), await opened(client, "revised-travelling")
    exported = [(await client.get(f"/v1/sessions/{each}/export")).content for each in (run["session_id"], empty["id"])]
    tenant = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "abroad"}, "spec": {}}
    await client.post("/v1/objects:apply", json={"objects": [{"manifest": tenant}]})
    there = {"hansa-tenant": "abroad"}
    for archive in exported:
        answer = await client.post("/v1/sessions:import", content=archive, headers=there)
        assert answer.status_code == 201, answer.text
        assert (answer.json()["revision"], answer.json()["smoke"]) == (2, False)
    manifests = [SCRIPTED, agent("revised-travelling", description="third")]
    applied = await client.post("/v1/objects:apply", json={"objects": [{"manifest": each} for each in manifests]}, headers=there)
    assert applied.json()["results"][1]["revision"] == 3
    for session in (run["session_id"], empty["id"]):
        body = {"type": "user.message", "content": "again"}
        answer = await client.post(f"/v1/sessions/{session}/events", json=body, headers=there)
        assert answer.json()["revision"] == 2


async def test_a_session_of_an_earlier_release_goes_on_with_what_it_was_on_last(engine: Engine, client: httpx2.AsyncClient) -> None:
    await put(client, "revised-older")
    run = await start(client, "revised-older", "hello", wait=20)
    connection = await engine.admin()
    await connection.execute("UPDATE hansa.sessions SET revision = NULL WHERE id = $1", run["session_id"])
    await connection.close()
    await put(client, "revised-older", description="second")
    assert (await said(client, run["session_id"], "again"))["revision"] == 1
    assert (await client.get(f"/v1/sessions/{run['session_id']}")).json()["revision"] == 1


@pytest.mark.timeout(90)
async def test_a_hundred_runs_go_on_while_a_revision_changes_and_is_undone(client: httpx2.AsyncClient) -> None:
    await put(client, "revised-changing", rollout=rollout(QUICK))
    await decided(client, "revised-changing")
    work = script(call("read", "look", seconds=0.05), {"text": "done", "delay": 0.2})
    first = [await start(client, "revised-changing", work) for _ in range(50)]
    sessions = {run["session_id"]: 1 for run in first}
    await put(client, "revised-changing", description="second", rollout=rollout(QUICK))
    later = await asyncio.gather(*(start(client, "revised-changing", work, session_id=session) for session in sessions))
    after = await decided(client, "revised-changing")
    assert after["serving"] == 2
    fresh = await start(client, "revised-changing", work)
    sessions[fresh["session_id"]] = 2
    undone = await put(client, "revised-changing", rollout=rollout(QUICK))
    assert undone["status"]["revision"] == {"desired": 3, "serving": 3}
    last = await start(client, "revised-changing", work)
    sessions[last["session_id"]] = 3
    runs = [await ended(client, run["id"], seconds=40) for run in [*first, *later, fresh, last]]
    assert len(runs) == 102
    assert strays(runs, sessions) == []
    assert (await status(client, "revised-changing"))["ready"]["status"] == "True"


def test_a_run_that_changes_its_revision_is_seen() -> None:
    good = {"id": "r", "session_id": "s", "revision": 1, "state": "completed"}
    assert strays([good], {"s": 1}) == []
    assert strays([good | {"revision": 2}], {"s": 1}) == ["run r is on 2"]
    assert strays([good | {"state": "failed"}], {"s": 1}) == ["run r is failed"]
