"""Calls in doubt after a worker was killed, settled by a person; and plugins that do not stop when they are told to."""

import asyncio
import time
from collections.abc import Callable

import httpx2

from runs.engine import Engine, apply, apply_agent, start, until
from runs.people import STEPS, all_end, begun, comes_to, do, equal, pay, settle, told, types
from samples import agent
from stack import Process

Workers = Callable[..., Process]
TOOLS = [{"plugin": "witness"}]
SHORT = {"HANSA_WORKER_LEASE_SECONDS": "1", "HANSA_WORKER_RENEW_SECONDS": "0.25"}
BOUND = 3.0 + 1.0
"""What a plugin that does not stop is given, and a lease."""


async def test_a_call_in_doubt_is_made_again_only_as_often_as_a_person_says(
    engine: Engine, client: httpx2.AsyncClient, worker: Workers
) -> None:
    await apply_agent(client, "doubt", **STEPS)
    first = worker(**SHORT)
    steps = [["tool", "witness_unsafe", "send", 1.5], pay("after")]
    runs = {name: await start(client, "doubt", steps) for name in ("done", "fail", "again", "killed")}
    for run in runs.values():
        await begun(engine, run, "send")
    first.kill()
    second = worker(**SHORT)
    for run in runs.values():
        await comes_to(client, run, "needs_review")
    await settle(client, runs["done"], "done", answer="it was")
    await settle(client, runs["fail"], "fail")
    await settle(client, runs["killed"], "retry")
    await settle(client, runs["killed"], "retry", status=409)
    await until(lambda: told(engine, runs["killed"], phase="begin") == ["send", "send"], "it is made again")
    second.kill()
    worker(**SHORT)
    await comes_to(client, runs["killed"], "needs_review")
    for name in ("again", "killed"):
        await settle(client, runs[name], "retry")
    bodies = dict(zip(runs, await all_end(client, list(runs.values())), strict=True))
    assert (bodies["fail"]["state"], bodies["fail"]["error"]["code"]) == ("failed", "review_failed")
    outputs = {name: body["output"] for name, body in bodies.items() if name != "fail"}
    assert outputs == {"done": ["it was", "after"], "again": ["send", "after"], "killed": ["send", "after"]}
    calls = {name: told(engine, run, phase="begin").count("send") for name, run in runs.items()}
    assert calls == {"done": 1, "fail": 1, "again": 2, "killed": 3}
    assert (await types(engine, runs["killed"])).count("run.needs_review") == 2
    await equal(client, *runs.values())


async def test_a_call_in_doubt_is_canceled_with_all_that_was_called(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    tools = [*TOOLS, {"agent": "last-leaf"}, {"agent": "last-stem"}]
    called = (agent("last-leaf", tools=TOOLS, **STEPS), agent("last-stem", tools=tools, **STEPS))
    await apply(client, *called, agent("root", tools=tools, **STEPS))
    first = worker(**SHORT)
    deep = ["call", "last-stem", [["call", "last-leaf", [pay("last leaf", 20)]]]]
    run = await start(client, "root", [["gather", [["tool", "witness_unsafe", "doubt", 20]], [deep]]])
    await begun(engine, run, "doubt")
    await until(lambda: [line for line in engine.witness() if line["mark"] == "last leaf"], "the leaf works")
    first.kill()
    worker(**SHORT)
    await comes_to(client, run, "needs_review")
    assert (await do(client, run, "cancel"))["state"] == "canceled"
    below = [(await client.get("/v1/runs", params={"agent": name})).json()["data"][0] for name in ("last-stem", "last-leaf")]
    assert {each["state"] for each in await all_end(client, below, seconds=10)} == {"canceled"}
    assert told(engine, run, *below) == []


async def test_a_plugin_that_does_not_stop_holds_no_run_longer_than_the_bound(
    engine: Engine, client: httpx2.AsyncClient, worker: Workers
) -> None:
    await apply_agent(client, "stubborn", **STEPS)
    await apply_agent(client, "slow", limits={"timeoutSeconds": 1}, **STEPS)
    worker(**SHORT)
    steps = [["stubborn", 40], pay("too late")]
    runs = [await start(client, "stubborn", steps), await start(client, "stubborn", steps), await start(client, "slow", steps)]
    for run in runs:
        await comes_to(client, run, "running")
    begun_at = time.monotonic()
    await do(client, runs[0], "cancel")
    await do(client, runs[1], "suspend")
    assert (await comes_to(client, runs[0], "canceled"))["error"] is None
    await comes_to(client, runs[1], "suspended")
    body = await comes_to(client, runs[2], "failed")
    assert time.monotonic() - begun_at < BOUND + 3
    assert body["error"]["code"] == "limit_timeout"
    assert told(engine, *runs) == []
    await do(client, runs[1], "cancel")


async def test_time_before_a_kill_is_counted(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "timed", limits={"timeoutSeconds": 4}, **STEPS)
    first = worker(**SHORT)
    run = await start(client, "timed", [pay("a", 60)])
    await begun(engine, run, "a")
    await asyncio.sleep(2)
    first.kill()
    worker(**SHORT)
    assert (await all_end(client, [run]))[0]["error"]["code"] == "limit_timeout"
    sql = "SELECT at FROM hansa.events WHERE run_id = $1 AND type = ANY('{run.resumed,run.failed}') ORDER BY seq"
    resumed, failed = [row["at"] for row in await engine.fetch(sql, run["id"])]
    assert (failed - resumed).total_seconds() < 3, "its second worker gave it its whole time again"
