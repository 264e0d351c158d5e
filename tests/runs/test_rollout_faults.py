"""A check goes on whatever is killed, and waits, saying for what, where nothing can be done."""

import asyncio
from collections.abc import Callable

import httpx2
import pytest

from runs.checks import QUICK, SLOW, check_of, decided, is_said, put, revisions, rollout, status
from runs.engine import Engine, call, ended, script, start, until
from samples import SCRIPTED
from stack import Process

Workers = Callable[..., Process]


async def test_without_a_worker_a_revision_waits_for_one_however_long_and_says_so(
    engine: Engine, client: httpx2.AsyncClient, worker: Workers
) -> None:
    # The message that begins a check needs a worker as well; this one serves no pool of the agent.
    messages = worker(HANSA_WORKER_POOLS="elsewhere")
    await put(client, "faulty-unserved", rollout=rollout(QUICK, seconds=1))
    found = await is_said(client, "faulty-unserved", "waits for a worker")
    assert (found["serving"], found["ready"]["reason"]) == (None, "Checking")
    await asyncio.sleep(2.5)
    assert (await status(client, "faulty-unserved"))["ready"]["reason"] == "Checking", "the time that it waited was counted"
    messages.stop()
    worker()
    assert (await decided(client, "faulty-unserved"))["serving"] == 1


async def test_a_check_outlives_the_death_of_its_worker_and_of_the_control_plane(
    engine: Engine, client: httpx2.AsyncClient, worker: Workers
) -> None:
    await put(client, "faulty-survivor")
    replica = engine.replica()
    async with engine.client(replica) as other:
        await put(
            other, "faulty-survivor", rollout=rollout(script(call("read", "first"), {"text": "well", "delay": 1.0}), contains=["well"])
        )
    replica.kill()
    first = worker()
    run = await check_of(client, "faulty-survivor", 2)
    await until(lambda: any(line["key"].startswith(run["id"]) for line in engine.witness()), "the check has begun")
    first.kill()
    assert (await status(client, "faulty-survivor"))["serving"] == 1
    worker()
    assert (await decided(client, "faulty-survivor"))["serving"] == 2
    (row,) = await engine.fetch("SELECT epoch, state FROM hansa.runs WHERE id = $1", run["id"])
    assert (row["epoch"] > 1, row["state"]) == (True, "completed")


async def test_a_suspended_tenant_and_a_spent_budget_hold_a_check_which_then_goes_on(client: httpx2.AsyncClient, worker: Workers) -> None:
    worker()
    there = {"hansa-tenant": "checked"}

    async def tenant(**spec: object) -> None:
        manifest = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "checked"}, "spec": spec}
        answer = await client.post("/v1/objects:apply", json={"objects": [{"manifest": manifest}]})
        assert answer.json()["failed"] == 0, answer.text

    await tenant(suspend=True)
    client.headers.update(there)
    await put(client, "faulty-held", rollout=rollout(QUICK))
    await is_said(client, "faulty-held", "its tenant is suspended")
    await tenant()
    assert (await decided(client, "faulty-held"))["serving"] == 1
    priced = {"name": "echo", "aliases": ["priced"], "prices": {"input": 1000.0, "output": 1000.0}}
    provider = {**SCRIPTED, "metadata": {"name": "dear"}, "spec": {"plugin": "scripted", "models": [priced]}}
    await client.post("/v1/objects:apply", json={"objects": [{"manifest": provider}]})
    await tenant(quotas={"budget": {"amount": 0.000001, "currency": "EUR", "period": "month", "onLimit": "suspend"}})
    await put(client, "faulty-held", model={"alias": "priced"}, rollout=rollout(QUICK))
    await is_said(client, "faulty-held", "budget is spent")
    await tenant(quotas={"budget": {"amount": 1000, "currency": "EUR", "period": "month", "onLimit": "suspend"}})
    assert (await decided(client, "faulty-held"))["serving"] == 2
    used = (await client.get("/v1/usage")).json()
    assert "faulty-held" in str(used), "what a check took is not counted"


async def test_a_model_that_vanishes_is_said_and_what_serves_goes_on_with_what_is_left(client: httpx2.AsyncClient, worker: Workers) -> None:
    worker()
    provider = {
        **SCRIPTED,
        "metadata": {"name": "passing"},
        "spec": {"plugin": "scripted", "models": [{"name": "echo", "aliases": ["passing"]}]},
    }
    other = {**provider, "spec": {"plugin": "scripted", "models": [{"name": "echo", "aliases": ["other"]}]}}
    await client.post("/v1/objects:apply", json={"objects": [{"manifest": provider}]})
    await put(client, "faulty-leaning", model={"alias": "passing", "fallbacks": [{"alias": "scripted"}]})
    session = (await start(client, "faulty-leaning", "hello", wait=20))["session_id"]
    await client.post("/v1/objects:apply", json={"objects": [{"manifest": other}]})
    found = (await client.get("/v1/agents/faulty-leaning")).json()["status"]
    told = {each["type"]: (each["status"], each["reason"]) for each in found["conditions"]}
    assert told == {
        "Accepted": ("True", "Accepted"),
        "ResolvedRefs": ("False", "NotResolved"),
        "Compatible": ("True", "Supported"),
        "Ready": ("False", "NotReady"),
    }
    assert found["revision"] == {"desired": 1, "serving": 1}
    assert "spec.model.alias" in found["conditions"][-1]["message"]
    assert (await start(client, "faulty-leaning", "again", session_id=session, wait=20))["state"] == "completed"
    await client.post("/v1/objects:apply", json={"objects": [{"manifest": provider}]})
    assert (await status(client, "faulty-leaning"))["ready"]["status"] == "True"


async def test_a_server_that_restarts_in_the_middle_of_a_check_costs_nothing(
    engine: Engine, client: httpx2.AsyncClient, worker: Workers
) -> None:
    worker()
    await put(client, "faulty-patient")
    await put(client, "faulty-patient", rollout=rollout(SLOW))
    run = await check_of(client, "faulty-patient", 2)
    dead = engine.pid("postgres")
    engine.kill_server("postgres")
    await until(lambda: engine.is_back("postgres", dead), "PostgreSQL is back")
    assert (await ended(client, run["id"], seconds=30))["state"] == "completed"
    assert (await decided(client, "faulty-patient"))["serving"] == 2
    assert (await revisions(client, "faulty-patient"))[2]["reason"] == "Passed"


@pytest.mark.parametrize("server", ["nats"])
async def test_what_was_applied_while_nats_is_away_is_checked_afterwards(
    engine: Engine, client: httpx2.AsyncClient, worker: Workers, server: str
) -> None:
    worker()
    dead = engine.pid(server)
    engine.kill_server(server)
    await put(client, "faulty-offline", rollout=rollout(QUICK))
    await until(lambda: engine.is_back(server, dead), f"{server} is back")
    assert (await decided(client, "faulty-offline", seconds=30))["serving"] == 1
