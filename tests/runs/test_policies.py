"""What a new run does in a session that has one under way, and what becomes of runs that fail for a passing reason or use up their time."""

import asyncio
from typing import Any

import httpx2
import pytest

from runs.engine import Engine, apply_agent, call, ended, script, start, until
from runs.people import STEPS, all_end, begun, comes_to, do, equal, look, pay, told, types

pytestmark = pytest.mark.usefixtures("steady")
AT_ONCE = 6


async def say(client: httpx2.AsyncClient, session: str, content: Any) -> httpx2.Response:
    return await client.post(f"/v1/sessions/{session}/events", json={"type": "user.message", "content": content})


@pytest.mark.parametrize("first", [[pay("a", 1.0)], [["event", "go", None]]], ids=["running", "waiting"])
async def test_reject_takes_one_run_at_a_time(client: httpx2.AsyncClient, first: list[Any]) -> None:
    await apply_agent(client, "rejects", concurrency="Reject", **STEPS)
    run = await start(client, "rejects", first)
    await comes_to(client, run, "waiting" if first[0][0] == "event" else "running")
    refused = await say(client, run["session_id"], [])
    assert (refused.status_code, run["id"] in refused.text) == (409, True)
    await do(client, run, "cancel")
    await comes_to(client, run, "canceled")
    answers = await asyncio.gather(*(say(client, run["session_id"], [["sleep", 0.5]]) for _ in range(AT_ONCE)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * (AT_ONCE - 1)
    (accepted,) = [answer.json() for answer in answers if answer.status_code == 202]
    assert (await ended(client, accepted["id"]))["state"] == "completed"
    assert (await say(client, run["session_id"], [])).status_code == 202


@pytest.mark.parametrize("policy", ["Interrupt", "Rollback"])
async def test_a_new_run_takes_the_place_of_those_before_it(engine: Engine, client: httpx2.AsyncClient, policy: str) -> None:
    name = policy.lower()
    await apply_agent(client, name, concurrency=policy, **STEPS)
    steps = [[pay("a", 20), pay("b")], [["event", "go", None], pay("b")], [["event", "end", None], pay("last")]]
    runs = [await start(client, name, steps[0])]
    await begun(engine, runs[0], "a")
    session = runs[0]["session_id"]
    runs.append((await say(client, session, steps[1])).json())
    await comes_to(client, runs[0], "canceled", seconds=5)
    await comes_to(client, runs[1], "waiting")
    answers = await asyncio.gather(*(say(client, session, steps[2]) for _ in range(AT_ONCE)))
    runs.extend(answer.json() for answer in answers)
    await all_end(client, runs[:2])

    async def is_alone() -> bool:
        return [(await look(client, run))["state"] for run in runs].count("canceled") == len(runs) - 1

    await until(is_alone, "all but one are canceled")
    await client.post(f"/v1/sessions/{session}/events/end", json={"data": 0})
    bodies = await all_end(client, runs)
    rows = await engine.fetch("SELECT id, state FROM hansa.runs WHERE session_id = $1 ORDER BY queued_seq", session)
    assert [row["state"] for row in rows] == ["canceled"] * (AT_ONCE + 1) + ["completed"]
    assert [body["output"] for body in bodies if body["state"] == "completed"] == [[0, "last"]]
    assert "b" not in told(engine, *runs)
    assert (await client.get(f"/v1/sessions/{session}")).json()["active_run"] is None


@pytest.mark.parametrize(("policy", "words"), [("Interrupt", 5), ("Rollback", 0)])
async def test_what_was_interrupted_is_remembered_and_what_was_rolled_back_is_not(
    client: httpx2.AsyncClient, policy: str, words: int
) -> None:
    """Its four words, and one that says that it was interrupted."""
    await apply_agent(client, "recalls", concurrency=policy)
    alone = await start(client, "recalls", "three", wait=20)
    await apply_agent(client, "recalls", concurrency=policy, placement={"pool": "nowhere"})
    run = await start(client, "recalls", "never to be answered")
    await apply_agent(client, "recalls", concurrency=policy)
    last = await ended(client, (await say(client, run["session_id"], "three")).json()["id"])
    assert (await look(client, run))["state"] == "canceled"
    assert last["usage"]["input_tokens"] - alone["usage"]["input_tokens"] == words
    await equal(client, last)


async def test_time_that_is_waited_is_not_counted(client: httpx2.AsyncClient) -> None:
    await apply_agent(client, "waits-long", limits={"timeoutSeconds": 1}, **STEPS)
    run = await start(client, "waits-long", [pay("a", 0.2), ["sleep", 1.2], pay("b", 0.2)])
    held = await start(client, "waits-long", [["sleep", 0.1], pay("b", 0.2)])
    await comes_to(client, held, "waiting")
    await do(client, held, "suspend")
    assert (await ended(client, run["id"]))["output"] == ["a", "slept", "b"]
    await do(client, held, "resume")
    assert (await ended(client, held["id"]))["output"] == ["slept", "b"]


async def test_a_passing_failure_is_tried_again_later_and_later_from_where_it_was(engine: Engine, client: httpx2.AsyncClient) -> None:
    await apply_agent(client, "tries", retry={"attempts": 3, "backoffSeconds": 0.3})
    passing, lasting = {"error": "unavailable", "times": 4, "text": "here"}, {"error": "unavailable"}
    runs = [await start(client, "tries", script(call("unsafe", "send"), turn)) for turn in (passing, lasting)]
    refused = await start(client, "tries", script(call("unsafe", "send"), {"error": "refused"}))
    bodies = await all_end(client, [*runs, refused])
    assert [(body["state"], body["attempt"]) for body in bodies] == [("completed", 2), ("failed", 3), ("failed", 1)]
    assert [body["error"] and body["error"]["code"] for body in bodies] == [None, "provider_unavailable", "provider_refused"]
    rows = await engine.fetch("SELECT data, at FROM hansa.events WHERE run_id = $1 AND type = 'run.retrying' ORDER BY seq", runs[1]["id"])
    assert [(row["data"]["attempt"], row["data"]["seconds"]) for row in rows] == [(1, 0.3), (2, 0.6)]
    resumed = await engine.fetch("SELECT at FROM hansa.events WHERE run_id = $1 AND type = 'run.resumed' ORDER BY seq", runs[1]["id"])
    pauses = [(again["at"] - tried["at"]).total_seconds() for tried, again in zip(rows, resumed, strict=True)]
    assert 0.3 <= pauses[0] < 0.3 + 2
    assert 0.6 <= pauses[1] < 0.6 + 2
    assert "run.retrying" not in await types(engine, refused)
    assert told(engine, *runs, refused) == ["send"] * 3, "a step before the failure was done again"
    await equal(client, *runs, refused)


async def test_a_run_that_waits_to_be_tried_again_is_held_and_canceled_like_any_other(client: httpx2.AsyncClient) -> None:
    await apply_agent(client, "tries-late", retry={"attempts": 2, "backoffSeconds": 600})
    runs = [await start(client, "tries-late", script({"error": "unavailable"})) for _ in range(2)]
    for run in runs:
        (wait,) = (await comes_to(client, run, "waiting"))["waits"]
        assert wait["kind"] == "retry"
        assert (await do(client, run, "suspend"))["state"] == "suspended"
    assert (await do(client, runs[0], "resume"))["state"] == "waiting", "it is tried again before its time"
    for run in runs:
        assert (await do(client, run, "cancel"))["state"] == "canceled"
    assert (await look(client, runs[1]))["attempt"] == 1
