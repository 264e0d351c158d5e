"""Servers that go away under a control plane: clear answers meanwhile, nothing lost, and no restart needed when they are back.

These tests share a platform of their own, which each of them leaves mended.
"""

import asyncio
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from api.problem import problem
from api.sse import FINAL, Message, events, numbered, opened, read
from hansa.dev.supervisor import read_states
from samples import SCRIPTED, agent
from stack import Process, Stack, open_stack

SLOW = f"#script {json.dumps([{'text': 'one two three four', 'delay': 1.5}])}"
QUICK = f"#script {json.dumps([{'text': 'done'}])}"


@pytest.fixture(scope="module")
def frail(migrated: Path) -> Iterator[tuple[Stack, Process]]:
    """A platform to be broken, and its control plane."""
    folder = Path(tempfile.mkdtemp(prefix="hansa-stack-"))
    with open_stack(folder, like=migrated) as stack:
        plane = stack.serve(HANSA_DATABASE_TIMEOUT_SECONDS="3")
        stack.worker(HANSA_WORKER_LEASE_SECONDS="5", HANSA_WORKER_RENEW_SECONDS="1", HANSA_WORKER_POLL_SECONDS="0.5")
        yield stack, plane
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def frail_api(frail: tuple[Stack, Process]) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of it, with an agent."""
    async with frail[0].client(frail[1]) as client:
        await client.post("/v1/objects:apply", json={"objects": [{"manifest": SCRIPTED}, {"manifest": agent("echo")}]})
        yield client


def pid(stack: Stack, name: str) -> int:
    """The process of a server."""
    (state,) = (each for each in read_states(stack.servers.folder.path / "run") if each.name == name)
    assert state.pid
    return state.pid


async def answers_again(api: httpx2.AsyncClient, seconds: float) -> None:
    """Wait until the control plane has both servers."""
    end = time.monotonic() + seconds
    while (found := await servers(api)) != {"postgres": True, "nats": True}:
        assert time.monotonic() < end, found
        await asyncio.sleep(0.1)


async def servers(api: httpx2.AsyncClient) -> dict[str, bool]:
    """What the control plane says of its servers."""
    return {check["name"]: check["ok"] for check in (await api.get("/readyz")).json()["checks"] if check["name"] != "plugins"}


async def test_without_postgres_each_request_is_told_to_come_again_and_later_all_is_there(
    frail: tuple[Stack, Process], frail_api: httpx2.AsyncClient
) -> None:
    stack, _ = frail
    run = (await frail_api.post("/v1/agents/echo/runs", json={"input": SLOW})).json()
    os.kill(pid(stack, "postgres"), signal.SIGKILL)
    refused: list[httpx2.Response] = []
    key = {"idempotency-key": "over the outage"}
    end = time.monotonic() + 25
    while time.monotonic() < end:
        answer = await frail_api.post("/v1/agents/echo/runs", json={"input": "meanwhile"}, headers=key)
        if answer.status_code == 202 and refused:
            break
        if answer.status_code != 202:
            refused.append(answer)
        await asyncio.sleep(0.02)
    assert refused, "PostgreSQL was killed, and no request noticed"
    for each in refused:
        found = problem(each, 503, "unavailable")
        assert found["retryable"]
        assert int(each.headers["retry-after"]) >= 1
        assert "PostgreSQL" in found["detail"]
    await answers_again(frail_api, 20)
    answer = await frail_api.post("/v1/agents/echo/runs", params={"wait": 20}, json={"input": "meanwhile"}, headers=key)
    assert answer.json()["output"] == "meanwhile"
    assert len([each for each in (await frail_api.get("/v1/runs")).json()["data"] if each["input"] == "meanwhile"]) == 1
    messages = await read(frail_api, run["session_id"], run["id"])
    assert numbered(messages) == list(range(1, len(numbered(messages)) + 1))
    assert events(messages)[-1]["type"] == "run.completed"


async def test_readiness_says_what_is_away(frail: tuple[Stack, Process], frail_api: httpx2.AsyncClient) -> None:
    stack, _ = frail
    await answers_again(frail_api, 20)
    nats = pid(stack, "nats")
    os.kill(nats, signal.SIGSTOP)
    try:
        end = time.monotonic() + 15
        while (answer := await frail_api.get("/readyz")).json()["status"] == "ok" and time.monotonic() < end:
            await asyncio.sleep(0.2)
        checks = {check["name"]: check["ok"] for check in answer.json()["checks"]}
        assert (answer.status_code, answer.json()["status"], checks) == (
            200,
            "degraded",
            {"postgres": True, "nats": False, "plugins": True},
        )
        started = await frail_api.post("/v1/agents/echo/runs", params={"wait": 10}, json={"input": "by polling"})
        assert started.json()["output"] == "by polling"
        assert (await frail_api.get("/livez")).json() == {"status": "ok"}
    finally:
        os.kill(nats, signal.SIGCONT)
    await answers_again(frail_api, 20)


async def test_a_stream_goes_on_when_nats_is_killed_under_it(frail: tuple[Stack, Process], frail_api: httpx2.AsyncClient) -> None:
    stack, _ = frail
    await answers_again(frail_api, 20)
    session = (await frail_api.post("/v1/sessions", json={"agent": "echo"})).json()["id"]
    messages: list[Message] = []
    async with opened(frail_api, session) as reader:
        for number in range(4):
            if number == 1:
                os.kill(pid(stack, "nats"), signal.SIGKILL)
            say = {"type": "user.message", "content": SLOW if number == 1 else QUICK}
            assert (await frail_api.post(f"/v1/sessions/{session}/events", json=say)).status_code == 202
            messages += await reader.until(*FINAL)
        assert numbered(messages) == list(range(1, 17))
        await answers_again(frail_api, 20)
        await frail_api.post(f"/v1/sessions/{session}/events", json={"type": "user.message", "content": SLOW})
        later = await reader.until(*FINAL)
    assert any(message.type == "delta" for message in later), "live text is back when NATS is"
    assert events([*messages, *later])[-1]["seq"] == 20


async def test_a_stream_outlives_postgres_or_says_that_it_ends(frail: tuple[Stack, Process], frail_api: httpx2.AsyncClient) -> None:
    stack, _ = frail
    await answers_again(frail_api, 20)
    run = (await frail_api.post("/v1/agents/echo/runs", json={"input": SLOW})).json()
    session, found, last = run["session_id"], list[Message](), "0"
    killed = False
    async with asyncio.timeout(40):
        while not found or found[-1].type not in FINAL:
            try:
                async with opened(frail_api, session, last=last, until=run["id"]) as reader:
                    async for message in reader:
                        if message.id is not None:
                            found.append(message)
                            last = message.id
                        if message.type == "run.started" and not killed:
                            os.kill(pid(stack, "postgres"), signal.SIGKILL)
                            killed = True
            except (httpx2.TransportError, AssertionError):
                await asyncio.sleep(0.2)
    assert killed
    assert numbered(found) == list(range(1, len(found) + 1))
