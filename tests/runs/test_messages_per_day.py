"""`quotas.messagesPerDay`: what a tenant's runs, people and programs send is counted, and not one more goes out."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from api.problem import problem
from hansa.bus import subjects
from messaging.parties import apply_tenant, credentials, program
from runs.engine import Engine
from runs.spending import Spender, calls, open_spender, words
from runs.test_participants import send
from runs.test_waits import STEPS
from samples import agent
from stack import Process


@pytest.fixture
async def talker(engine: Engine, client: httpx2.AsyncClient, steady: Process) -> Spender:
    """A tenant whose agent `talker` calls another one, and publishes."""
    assert steady.alive
    found = await open_spender(engine, client)
    await found.apply(agent("talker", tools=[{"agent": "spender"}], **STEPS))
    return found


async def runs(talker: Spender, *steps: list[Any]) -> dict[str, Any]:
    """A run of these steps, at its end."""
    return await talker.ended(await talker.start(list(steps), agent_name="talker"))


async def used(talker: Spender) -> tuple[float, str]:
    found = (await talker.limits())["messagesPerDay"]
    return found["used"], found["state"]


async def test_a_run_is_told_that_its_call_was_not_made_and_one_that_publishes_fails(talker: Spender) -> None:
    await talker.quotas(messagesPerDay=3)
    call = ["call", "spender", calls(words(1))]
    run = await runs(talker, call, ["publish", "news", 1], call, call)
    assert (run["state"], run["output"][:3]) == ("completed", ["word", "published", "word"])
    assert "limit_messages_per_day: agent 'spender' was not called: the tenant has sent 3 of 3 messages today" in run["output"][3]
    assert await used(talker) == (3, "reached")
    failed = await runs(talker, ["publish", "news", 1])
    assert (failed["state"], failed["error"]["code"]) == ("failed", "limit_messages_per_day")
    assert (await talker.asks("GET", f"/v1/runs/{run['id']}/replay")).json()["equal"], "it stands in the log"
    await talker.quotas()
    assert (await runs(talker, call, ["publish", "news", 1]))["output"] == ["word", "published"]


async def test_an_event_over_the_api_counts_and_is_refused_with_the_time_to_wait(talker: Spender) -> None:
    await talker.quotas(messagesPerDay=1)
    session = (await talker.asks("POST", "/v1/sessions", json={"agent": "talker"})).json()["id"]
    assert (await talker.asks("POST", f"/v1/sessions/{uuid4()}/events/go", json={})).status_code == 404
    assert (await talker.asks("POST", f"/v1/sessions/{session}/events/go", json={"data": 1})).status_code == 202
    answer = await talker.asks("POST", f"/v1/sessions/{session}/events/go", json={"data": 2})
    refused = problem(answer, 429, "limit_exceeded")
    assert "the tenant has sent 1 of 1 messages today (quotas.messagesPerDay); the next day begins" in refused["detail"]
    assert 0 < int(answer.headers["retry-after"]) <= 86_400
    heard = await talker.asks("POST", f"/v1/sessions/{session}/events", json={"type": "user.message", "content": [["event", "go", 5]]})
    assert (await talker.ended(heard.json()["id"]))["output"] == [1], "what was refused was not kept"


async def test_a_program_over_nats_is_refused_one_too_many_and_what_comes_again_counts_once(
    client: httpx2.AsyncClient, steady: Process, tmp_path: Path
) -> None:
    await apply_tenant(client, "wordy", quotas={"messagesPerDay": 2})
    once = uuid4().hex
    async with program(tmp_path, await credentials(client, "wordy")) as wordy:
        first = await send(wordy, subjects.own_event("x"), 1, once)
        assert [await send(wordy, subjects.own_event("x"), 1, once) for _ in range(4)] == [first] * 4
        assert "id" in await send(wordy, subjects.own_event("x"), 2)
        refused = (await send(wordy, subjects.own_event("x"), 3))["error"]
        assert (refused["code"], refused["retryable"], 0 < refused["retry_after"] <= 86_400) == ("limit_exceeded", True, True)
        assert await send(wordy, subjects.own_event("x"), 1, once) == first
