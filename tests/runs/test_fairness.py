"""Tenants share the workers by their weights, and none is kept waiting by another's backlog, however many workers there are."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest

from api.keys import issue
from runs.engine import Engine, apply, apply_agent, ended, start
from runs.people import STEPS, Run, pay
from stack import Process, plain_client

Workers = Callable[..., Process]
HEAVY, LIGHT = 48, 32
SLOTS = 4


@asynccontextmanager
async def tenants(engine: Engine, **weights: int) -> AsyncIterator[list[httpx2.AsyncClient]]:
    """Clients of tenants with these weights, each with an agent `work`."""
    async with AsyncExitStack() as closing:
        clients: list[httpx2.AsyncClient] = []
        for name, weight in weights.items():
            headers = await issue(engine.stack, name, name="fair", roles=["platform-admin"])
            clients.append(await closing.enter_async_context(plain_client(engine.control_plane.url, headers=headers)))
            manifest: dict[str, Any] = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}}
            await apply(clients[-1], {**manifest, "spec": {"weight": weight}})
            await apply_agent(clients[-1], "work", **STEPS)
        yield clients


async def backlog(client: httpx2.AsyncClient, count: int, *, seconds: float = 0.03) -> list[Run]:
    """So many runs, each of which takes a little time."""
    return list(await asyncio.gather(*(start(client, "work", [pay("a", seconds)]) for _ in range(count))))


async def many(worker: Workers, count: int) -> None:
    """So many workers, started at once."""
    await asyncio.gather(*(asyncio.to_thread(worker, HANSA_WORKER_CONCURRENCY=str(SLOTS)) for _ in range(count)))


async def in_order(engine: Engine, runs: list[Run]) -> list[str]:
    """The runs that have started, in that order."""
    sql = "SELECT id FROM hansa.runs WHERE id = ANY($1::uuid[]) AND started_at IS NOT NULL ORDER BY started_at, id"
    return [str(row["id"]) for row in await engine.fetch(sql, [run["id"] for run in runs])]


@pytest.mark.parametrize("workers", [1, 3])
async def test_tenants_with_a_backlog_share_the_workers_by_their_weights(engine: Engine, worker: Workers, workers: int) -> None:
    async with tenants(engine, **{f"three-{workers}": 3, f"one-{workers}": 1}) as (three, one):
        heavy, light = await asyncio.gather(backlog(three, HEAVY), backlog(one, LIGHT))
        await many(worker, workers)
        for run in (heavy[-1], light[-1]):
            await ended(three if run is heavy[-1] else one, run["id"])
        order = await in_order(engine, [*heavy, *light])
        mine = {run["id"] for run in heavy}
        counted = 0
        for place, run in enumerate(order, start=1):
            counted += run in mine
            if counted == HEAVY * 3 // 4:
                others = place - counted
                break
        else:
            raise AssertionError("they have not all started")
        expected = counted / 3
        assert abs(others - expected) <= 2 + workers, f"{counted} to {others}, and not 3 to 1"


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_backlog_keeps_no_other_tenant_waiting(engine: Engine, worker: Workers, workers: int) -> None:
    async with tenants(engine, **{f"flood-{workers}": 1, f"calm-{workers}": 1}) as (flood, calm):
        flooding = await backlog(flood, 75 * workers, seconds=0.1)
        own = await backlog(calm, 1)
        await many(worker, workers)
        for _ in range(2):
            await ended(calm, own[-1]["id"])
            own.extend(await backlog(calm, 1))
        await ended(calm, own[-1]["id"])
        sql = """SELECT count(*) FILTER (WHERE f.started_at BETWEEN c.created_at AND c.started_at) AS before,
            count(*) FILTER (WHERE f.started_at > c.started_at) AS behind FROM hansa.runs c CROSS JOIN hansa.runs f
            WHERE c.id = ANY($1::uuid[]) AND f.id = ANY($2::uuid[]) GROUP BY c.id"""
        for run in flooding:
            await ended(flood, run["id"])
        rows = await engine.fetch(sql, [run["id"] for run in own], [run["id"] for run in flooding])
        assert all(row["behind"] for row in rows), "there was no backlog any more"
        assert max(row["before"] for row in rows) <= 2 * workers * SLOTS, rows
