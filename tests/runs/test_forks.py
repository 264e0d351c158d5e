"""A run is forked at every event of its log: each fork comes to the same end and repeats nothing that was done before that event."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from runs.engine import Engine, apply, ended, start
from runs.people import STEPS, Run, all_end, do, equal, look, pay, told
from samples import agent

pytestmark = pytest.mark.usefixtures("steady")
CALLS = ("one", "two", "three", "four")
INPUT: list[Any] = [
    ["values"],
    pay("one"),
    ["sleep", 0.05],
    ["tool", "witness_unsafe", "two", 0],
    ["ask", "Go on?"],
    ["gather", [["tool", "witness_idempotent", "three", 0]], [["event", "go", None], pay("four")]],
    ["call", "forked-leaf", [pay("leaf")]],
    ["publish", "done", 1],
]


async def answer(client: httpx2.AsyncClient, run: Run) -> Run:
    """The run once it has ended; its question is answered and its event sent whenever it waits for them."""

    async def serve() -> None:
        while True:
            for wait in (await look(client, run))["waits"]:
                if wait["kind"] == "approval":
                    await client.post(f"/v1/approvals/{wait['key']}/decide", json={"decision": "answer", "answer": "yes"})
                elif wait["kind"] == "event":
                    await client.post(f"/v1/sessions/{run['session_id']}/events/go", json={"data": "now"})
            await asyncio.sleep(0.1)

    serving = asyncio.create_task(serve())
    try:
        return await ended(client, run["id"], seconds=30)
    finally:
        serving.cancel()


def done_before(events: list[dict[str, Any]]) -> Iterator[tuple[int, frozenset[str]]]:
    """Every number of the log, and the marks of the calls whose results stand there up to it."""
    marks = frozenset[str]()
    for event in events:
        if event["type"] == "tool.completed":
            marks |= {event["data"]["content"]}
        yield event["seq"], marks


async def test_a_fork_at_any_event_ends_alike_and_repeats_no_effect_before_it(engine: Engine, client: httpx2.AsyncClient) -> None:
    tools = [{"plugin": "witness"}, {"agent": "forked-leaf"}]
    await apply(client, agent("forked-leaf", tools=tools[:1], **STEPS), agent("forked", tools=tools, **STEPS))
    run = await answer(client, await start(client, "forked", INPUT))
    events = (await client.get(f"/v1/sessions/{run['session_id']}/events", params={"limit": 200})).json()["data"]
    assert {event["type"] for event in events} >= {"timer.fired", "approval.decided", "event.received", "run.returned", "value.recorded"}
    forks = [(marks, await do(client, run, "fork", at=seq)) for seq, marks in done_before(events)]
    bodies = await asyncio.gather(*(answer(client, fork) for _, fork in forks))
    for (marks, fork), body in zip(forks, bodies, strict=True):
        assert body["state"] == "completed", body
        assert body["output"][1:] == run["output"][1:]
        assert sorted(told(engine, fork)) == sorted(set(CALLS) - marks)
    assert (forks[0][0], forks[-1][0]) == (frozenset(), set(CALLS))
    children = (await client.get("/v1/runs", params={"agent": "forked-leaf", "limit": 200})).json()["data"]
    returned = next(event["seq"] for event in events if event["type"] == "run.returned")
    assert {child["parent_run"] for child in children} == {run["id"], *(fork["id"] for _, fork in forks[: returned - 1])}
    assert sorted(told(engine, run)) == sorted(CALLS), "the run itself has done something again"
    await equal(client, run, *(fork for _, fork in forks))


async def test_a_fork_of_a_fork_and_of_a_run_in_doubt_goes_on_by_itself(engine: Engine, client: httpx2.AsyncClient) -> None:
    await apply(client, agent("forked-again", tools=[{"plugin": "witness"}], **STEPS))
    run = await start(client, "forked-again", [["values"], pay("one"), pay("two")], wait=20)
    events = (await client.get(f"/v1/sessions/{run['session_id']}/events")).json()["data"]
    first = next(event["seq"] for event in events if event["type"] == "tool.completed")
    (fork,) = await all_end(client, [await do(client, run, "fork", at=first)])
    own = (await client.get(f"/v1/sessions/{fork['session_id']}/events")).json()["data"]
    first = next(event["seq"] for event in own if event["type"] == "tool.completed")
    (second,) = await all_end(client, [await do(client, fork, "fork", at=first)])
    assert (fork["output"], second["output"]) == (run["output"], run["output"]), "what was drawn before is drawn again"
    assert (told(engine, fork), told(engine, second)) == (["two"], ["two"])
    await equal(client, run, fork, second)
