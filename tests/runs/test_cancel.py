"""Cancelling: at once while a run waits, within moments while it runs, with and without the bus, and harmless when repeated."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from runs.engine import Engine, apply_agent, call, ended, script, start, until
from stack import Process

Workers = Callable[..., Process]
ENDLESS = script({"text": "never said", "delay": 50})


@contextmanager
def without_bus(engine: Engine) -> Iterator[None]:
    """NATS hangs: connections stay open and nothing is answered."""
    pid = engine.pid("nats")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def cancel(client: httpx2.AsyncClient, run: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(f"/v1/runs/{run['id']}/cancel")
    assert answer.status_code == 202, answer.text
    return answer.json()


async def running(client: httpx2.AsyncClient, run: dict[str, Any]) -> None:
    async def look() -> bool:
        return (await client.get(f"/v1/runs/{run['id']}")).json()["state"] == "running"

    await until(look, "it runs")


async def test_a_queued_run_is_canceled_at_once_and_the_next_goes_on(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "cancel")
    first = await start(client, "cancel", ENDLESS)
    second = await start(client, "cancel", ENDLESS, session_id=first["session_id"])
    third = await start(client, "cancel", script({"text": "said"}), session_id=first["session_id"])
    assert (await cancel(client, second))["state"] == "canceled"
    assert (await cancel(client, first))["state"] == "canceled"
    worker()
    assert (await ended(client, third["id"]))["output"] == "said"
    _, events = await engine.facts([first["id"]])
    assert [event["type"] for event in events if event["run_id"] != events[-1]["run_id"]] == ["run.queued"] * 2 + ["run.canceled"] * 2


async def test_a_running_run_is_canceled_by_the_bus_and_stays_so(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "cancel")
    # Renewals are so far apart that only the bus can be what tells the worker.
    worker(HANSA_WORKER_LEASE_SECONDS="90", HANSA_WORKER_RENEW_SECONDS="30")
    thinking = await start(client, "cancel", ENDLESS)
    calling = await start(client, "cancel", script(call("keyed", "pay", seconds=25), {"text": "done"}))
    await running(client, thinking)
    await until(lambda: any(line["key"].startswith(calling["id"]) for line in engine.witness()), "the call is begun")
    for run in (thinking, calling):
        assert (await cancel(client, run))["state"] in ("running", "canceled")
        await cancel(client, run)
        body = await ended(client, run["id"], seconds=10)
        assert (body["state"], body["output"], body["error"]) == ("canceled", None, None)
        assert (await cancel(client, run))["finished_at"] == body["finished_at"]
        _, events = await engine.facts([run["id"]])
        types = [event["type"] for event in events]
        assert (types.count("run.cancel_requested"), types.count("run.canceled"), types[-1]) == (1, 1, "run.canceled")


async def test_a_run_is_canceled_while_it_is_only_just_being_claimed(client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "cancel")
    worker(HANSA_WORKER_LEASE_SECONDS="90", HANSA_WORKER_RENEW_SECONDS="30")
    for _ in range(15):
        run = await start(client, "cancel", ENDLESS)
        await cancel(client, run)
        assert (await ended(client, run["id"], seconds=10))["state"] == "canceled"


async def test_without_the_bus_a_run_is_found_followed_and_canceled(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "cancel")
    worker()
    with without_bus(engine):
        run = await start(client, "cancel", script(call("read", "look"), {"text": "said"}))
        events: list[str] = []
        async with client.stream("GET", f"/v1/sessions/{run['session_id']}/events/stream", params={"until": run["id"]}) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("event: "):
                    events.append(line.removeprefix("event: "))
        assert [event for event in events if event != "delta"] == [
            "run.queued", "run.started", "model.completed", "tool.completed", "model.completed", "run.completed",
        ]  # fmt: skip
        endless = await start(client, "cancel", ENDLESS)
        await running(client, endless)
        await cancel(client, endless)
        assert (await ended(client, endless["id"], seconds=10))["state"] == "canceled"


async def test_a_bus_that_was_killed_is_used_again_when_it_is_back(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "cancel")
    worker(HANSA_WORKER_LEASE_SECONDS="90", HANSA_WORKER_RENEW_SECONDS="30")
    run = await start(client, "cancel", ENDLESS)
    await running(client, run)
    dead = engine.pid("nats")
    engine.kill_server("nats")
    await until(lambda: engine.is_back("nats", dead), "NATS is back")
    other = await start(client, "cancel", script({"text": "said"}), wait=20)
    assert other["output"] == "said"

    async def canceled() -> bool:
        # Said until it is heard: a message that no connection carried is lost by design.
        return (await cancel(client, run))["state"] == "canceled"

    await until(canceled, "the cancellation is heard", seconds=15)
