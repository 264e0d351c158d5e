"""PostgreSQL killed under running runs: they go on when it is back, each step written once."""

import asyncio
from collections.abc import Callable

import httpx2
import pytest

from runs.engine import Engine, apply_agent, call, ended, script, start, until
from runs.oracle import violations
from stack import Process

STEPS = script(*(call(name, f"{name}-{number}", seconds=0.15) for number in range(4) for name in ("keyed", "unsafe")), {"text": "done"})
MARKS = frozenset(f"{name}-{number}" for number in range(4) for name in ("keyed", "unsafe"))


@pytest.mark.timeout(90)
async def test_runs_outlive_two_deaths_of_the_database(engine: Engine, client: httpx2.AsyncClient, worker: Callable[..., Process]) -> None:
    await apply_agent(client, "outlive")
    # A lease that outlasts the outage: what is shown is that a write whose answer was lost is sent again and done once.
    worker(HANSA_WORKER_LEASE_SECONDS="30")
    ids = [run["id"] for run in await asyncio.gather(*(start(client, "outlive", STEPS) for _ in range(16)))]

    def mine() -> list[dict[str, object]]:
        return [line for line in engine.witness() if line["key"].partition(":")[0] in ids]

    for share in (80, 160):
        await until(lambda share=share: len(mine()) >= share, "the runs are in full swing")
        engine.kill_server("postgres")
    for run_id in ids:
        assert (await ended(client, run_id, seconds=40))["state"] == "completed"
    runs, events = await engine.facts(ids)
    assert violations(runs, events, mine(), marks=MARKS) == []
    assert {run["epoch"] for run in runs} == {1}, "a run has lost its worker over it"


async def test_while_the_database_is_away_requests_are_asked_to_come_again(engine: Engine, client: httpx2.AsyncClient) -> None:
    engine.kill_server("postgres")
    answers = [await client.get("/v1/runs") for _ in range(20)]
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert all(answer.headers.get("retry-after") for answer in answers if answer.status_code == 503)

    async def back() -> bool:
        return (await client.get("/v1/runs")).status_code == 200

    await until(back, "the database is back")
