"""Sessions: one run at a time, in the order of the log, whatever is posted at once."""

import asyncio
from typing import Any

import httpx2
import pytest

from runs.engine import Engine, apply_agent, ended, script, start

pytestmark = pytest.mark.usefixtures("steady")


async def test_messages_posted_at_once_run_one_after_the_other_in_order(engine: Engine, client: httpx2.AsyncClient) -> None:
    await apply_agent(client, "talk")
    session = (await client.post("/v1/sessions", json={"agent": "talk"})).json()["id"]

    async def say(number: int) -> dict[str, Any]:
        body = {"type": "user.message", "content": script({"text": f"answer {number}", "delay": 0.1})}
        answer = await client.post(f"/v1/sessions/{session}/events", json=body)
        assert answer.status_code == 202, answer.text
        return answer.json()

    runs = await asyncio.gather(*(say(number) for number in range(5)))
    for run in runs:
        assert (await ended(client, run["id"]))["state"] == "completed"
    _, events = await engine.facts([runs[0]["id"]])
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    queued = [event["run_id"] for event in events if event["type"] == "run.queued"]
    spans = [(event["run_id"], event["type"]) for event in events if event["type"] in ("run.started", "run.completed")]
    assert spans == [(run, type_) for run in queued for type_ in ("run.started", "run.completed")]
    assert len(queued) == 5


async def test_a_run_is_shown_the_turns_before_it_and_never_those_after(client: httpx2.AsyncClient) -> None:
    await apply_agent(client, "echo")
    first = await start(client, "echo", "one", wait=20)
    more = [await start(client, "echo", text, session_id=first["session_id"]) for text in ("two", "three")]
    last = await ended(client, more[-1]["id"])
    middle = await ended(client, more[0]["id"])
    read = [run["usage"]["input_tokens"] for run in (first, middle, last)]
    assert read[1] - read[0] == 2, "a turn before is one word of input and one of output"
    assert read[2] - read[1] == 2
    assert (await client.get(f"/v1/runs/{middle['id']}/replay")).json()["equal"], "a later turn has come into the history"
