"""Workers with other code than that which began a run: it is not gone on with wrongly, and can be finished by the code that began it."""

from collections.abc import Callable
from typing import Any

import httpx2

from runs.engine import Engine, apply_agent, ended, start, until
from stack import Process

Workers = Callable[..., Process]
FICKLE: dict[str, Any] = {"runtime": {"name": "fickle"}}


async def waiting(client: httpx2.AsyncClient, run: dict[str, Any]) -> None:
    async def look() -> bool:
        return (await client.get(f"/v1/runs/{run['id']}")).json()["state"] == "waiting"

    await until(look, "the run waits")


async def send_go(client: httpx2.AsyncClient, run: dict[str, Any]) -> None:
    answer = await client.post(f"/v1/sessions/{run['session_id']}/events/go", json={"data": None})
    assert answer.status_code == 202, answer.text


async def test_a_run_that_newer_code_would_go_on_with_wrongly_is_refused_and_its_step_named(
    engine: Engine, client: httpx2.AsyncClient, worker: Workers
) -> None:
    await apply_agent(client, "upgraded", **FICKLE)
    old = worker()
    run = await start(client, "upgraded", "other first call")
    await waiting(client, run)
    assert old.terminate() == 0
    worker(HANSA_TOOL_FICKLE="newer")
    before = engine.witness()
    await send_go(client, run)
    body = await ended(client, run["id"])
    assert (body["state"], body["error"]["code"]) == ("failed", "replay_diverged")
    assert body["error"]["detail"].startswith('step 1 was call of ["witness_read",{"mark":"first"}] in the log')
    assert engine.witness() == before, "the newer code has called a tool"


async def test_runs_under_way_finish_on_the_code_that_began_them(client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "moved", **FICKLE)
    worker()
    first = await start(client, "moved", "other first call")
    await waiting(client, first)
    await apply_agent(client, "moved", **FICKLE, placement={"pool": "newer"})
    worker(HANSA_TOOL_FICKLE="newer", HANSA_WORKER_POOLS="newer")
    second = await start(client, "moved", "other end")
    assert (await ended(client, second["id"]))["output"] == "newer"
    await send_go(client, first)
    body = await ended(client, first["id"])
    assert (body["state"], body["output"], body["revision"]) == ("completed", "end", 1)
