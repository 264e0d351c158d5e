"""What tests of the engine ask of runs over REST, the way a person would: hold, decide, fork, and look at what became of it."""

from collections.abc import Sequence
from typing import Any

import httpx2

from runs.engine import Engine, ended, until

STEPS: dict[str, Any] = {"runtime": {"name": "steps"}}
Run = dict[str, Any]


async def look(client: httpx2.AsyncClient, run: Run) -> Run:
    return (await client.get(f"/v1/runs/{run['id']}")).json()


async def do(client: httpx2.AsyncClient, run: Run, verb: str, *, status: int = 202, **body: Any) -> Run:
    """cancel, suspend, resume or fork."""
    options: dict[str, Any] = {"json": body} if verb in ("resume", "fork") else {}
    answer = await client.post(f"/v1/runs/{run['id']}/{verb}", **options)
    assert answer.status_code == status, answer.text
    return answer.json()


async def settle(client: httpx2.AsyncClient, run: Run, decision: str, *, answer: Any = None, status: int = 202) -> None:
    """Decide about a call in doubt: done, retry or fail."""
    found = await client.post(f"/v1/runs/{run['id']}/resume", json={"as": decision, "answer": answer})
    assert found.status_code == status, found.text


async def comes_to(client: httpx2.AsyncClient, run: Run, *states: str, seconds: float = 20.0) -> Run:
    """The run once it is in one of the states."""

    async def found() -> Run | None:
        seen = await look(client, run)
        return seen if seen["state"] in states else None

    return await until(found, f"run {run['id']} is {' or '.join(states)}", seconds=seconds)


async def all_end(client: httpx2.AsyncClient, runs: Sequence[Run], *, seconds: float = 20.0) -> list[Run]:
    """All runs, ended."""
    return [await ended(client, run["id"], seconds=seconds) for run in runs]


def told(engine: Engine, *runs: Run, phase: str = "effect") -> list[str]:
    """The marks of what the tools have told of these runs, in the order of their telling."""
    ids = {run["id"] for run in runs}
    return [line["mark"] for line in engine.witness() if line["phase"] == phase and line["key"].partition(":")[0] in ids]


async def types(engine: Engine, run: Run) -> list[str]:
    """The types of the run's events."""
    rows = await engine.fetch("SELECT type FROM hansa.events WHERE run_id = $1 ORDER BY seq", run["id"])
    return [row["type"] for row in rows]


async def equal(client: httpx2.AsyncClient, *runs: Run) -> None:
    """All of them replay equal."""
    for run in runs:
        replay = (await client.get(f"/v1/runs/{run['id']}/replay")).json()
        assert replay["equal"], replay


def pay(mark: str, seconds: float = 0.0) -> list[Any]:
    """A step that pays under a key."""
    return ["tool", "witness_keyed", mark, seconds]


async def begun(engine: Engine, run: Run, mark: str) -> None:
    """Until a call of the run is begun."""
    await until(lambda: mark in told(engine, run, phase="begin"), f"{mark} is begun")
