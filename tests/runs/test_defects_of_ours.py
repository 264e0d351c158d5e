"""What goes wrong in our own statements is no end of a run: it is left to its lease, and whoever takes it over goes on with it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx2

from runs.engine import Engine, apply_agent, ended, start, until
from runs.test_waits import STEPS, equal, send, state_of
from stack import Process

Workers = Callable[..., Process]


@asynccontextmanager
async def broken(engine: Engine, damage: str, mend: str) -> AsyncIterator[None]:
    """The database does not know, or not allow, what our statements ask for."""
    connection = await engine.admin()
    try:
        await connection.execute(damage)
        try:
            yield
        finally:
            await connection.execute(mend)
    finally:
        await connection.close()


async def left(worker: Process, run: str) -> None:
    """Until the worker has let go of the run."""
    await until(lambda: "run.left" in worker.log.read_text() and run in worker.log.read_text(), "the run is left")


async def test_a_world_that_can_not_be_read_ends_no_run(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "worldless", **STEPS)
    away, back = "ALTER FUNCTION hansa.run_world RENAME TO run_world_away", "ALTER FUNCTION hansa.run_world_away RENAME TO run_world"
    first = worker()
    async with broken(engine, away, back):
        run = await start(client, "worldless", [["tool", "witness_unsafe", "once", 0]])
        await left(first, run["id"])
        assert (await state_of(client, run))["state"] == "running"
    body = await ended(client, run["id"])
    assert (body["state"], body["output"]) == ("completed", ["once"]), body
    assert body["epoch"] > 1
    await equal(client, run)


async def test_a_look_that_fails_leaves_no_run_behind(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "lookless", **STEPS)
    first = worker()
    steps = [["gather", [["event", "go", None]], [["tool", "witness_keyed", "slow", 1.0]]]]
    run = await start(client, "lookless", steps)
    await until(lambda: [line for line in engine.witness() if line["key"].startswith(run["id"])], "the run works")
    async with broken(engine, "REVOKE SELECT ON hansa.events FROM hansa_app", "GRANT SELECT ON hansa.events TO hansa_app"):
        await send(client, run, "go", "now")
        await until(lambda: "run.look_failed" in first.log.read_text(), "the look has failed")
    body = await ended(client, run["id"])
    assert (body["state"], body["output"]) == ("completed", [[["now"], ["slow"]]]), body
    await equal(client, run)
