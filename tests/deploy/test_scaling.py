"""By what workers are scaled: the question that KEDA asks, put to a real database as the role that asks it."""

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from db.scratch import Scratch, open_scratch
from deploy.charts import PLATFORM, chart, named
from hansa.db import selfcheck, walls
from hansa.db.pool import open_database
from hansa.tenants.service import tenant_id
from stack import Stack

SQL = (PLATFORM / "examples/scaler.sql").read_text()
RUN = (
    "INSERT INTO hansa.runs (tenant_id, id, session_id, queued_seq, agent, revision, state, gate, pool, input) "
    "VALUES ($1, $2, $2, 1, 'a', 1, $3, $4, $5, '{}')"
)


@pytest.fixture
async def scratch(stack: Stack, tmp_path: Path) -> Any:
    async with open_scratch(stack, tmp_path) as found:
        await found.execute(SQL)
        await found.execute("SET session_replication_role = replica")  # runs without sessions: only they are counted
        yield found


def question(deployment: str) -> str:
    """What the chart has KEDA ask."""
    (trigger,) = named(chart("everything"), "ScaledObject", deployment)["spec"]["triggers"]
    return trigger["metadata"]["query"]


async def asked(scratch: Scratch, sql: str) -> Any:
    """The answer that the scaler's role gets."""
    async with scratch.owner.transaction():
        await scratch.execute("SET LOCAL ROLE hansa_scaler")
        return await scratch.owner.fetchval(sql)


async def add(
    scratch: Scratch, number: int, state: str, pool: str = "default", *, gate: str | None = None, tenant: UUID | None = None
) -> None:
    for _ in range(number):
        await scratch.execute(RUN, tenant or uuid4(), uuid4(), state, gate, pool)


async def test_runs_that_workers_are_at_or_could_be_at_are_counted_and_no_others(scratch: Scratch) -> None:
    sql = question("hansa-worker-default")
    assert await asked(scratch, sql) == 0
    await add(scratch, 3, "queued")
    await add(scratch, 2, "queued", "slow")
    await add(scratch, 4, "running")
    assert await asked(scratch, sql) == 9
    for state in ("waiting", "suspended", "completed", "failed", "canceled", "needs_review"):
        await add(scratch, 1, state)
    for gate in ("session", "agent", "time"):
        await add(scratch, 1, "queued", gate=gate)
    await add(scratch, 5, "queued", "gpu")
    await add(scratch, 5, "queued", f"{tenant_id('acme')}/default")
    assert await asked(scratch, sql) == 9, "what nobody could go on with, or other workers would, brings no pod"


async def test_a_long_queue_is_counted_as_far_as_it_matters(scratch: Scratch) -> None:
    sql = question("hansa-worker-acme")
    await scratch.add_tenant(tenant_id("acme"), "acme")
    pool = f"{tenant_id('acme')}/default"
    await add(scratch, 40, "queued", pool)
    await add(scratch, 1, "running", pool)
    assert await asked(scratch, sql) == 4 * 8 + 1


async def test_workers_of_a_tenants_own_are_scaled_by_its_runs_alone(scratch: Scratch) -> None:
    sql = question("hansa-worker-acme")
    await add(scratch, 3, "queued", f"{tenant_id('acme')}/default")
    assert await asked(scratch, sql) == 0, "there is no such tenant yet"
    await scratch.add_tenant(tenant_id("acme"), "acme")
    await add(scratch, 7, "queued")
    await add(scratch, 7, "queued", f"{tenant_id('other')}/default")
    assert await asked(scratch, sql) == 3


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT input FROM hansa.runs",
        "SELECT id FROM hansa.runs",
        "SELECT data FROM hansa.events",
        "SELECT id FROM hansa.api_keys",
        "SELECT display_name FROM hansa.tenants",
        "UPDATE hansa.runs SET state = 'canceled'",
        "DELETE FROM hansa.runs",
        "SELECT * FROM hansa.run_claim('w', 1, '1 second', 'default', NULL, 0)",
    ],
)
async def test_the_role_that_counts_can_do_nothing_else(scratch: Scratch, sql: str) -> None:
    await add(scratch, 1, "queued")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asked(scratch, sql)


async def test_the_role_that_counts_opens_no_wall(scratch: Scratch) -> None:
    await scratch.execute(SQL)  # and may be made again
    async with open_database(scratch.settings.database) as database:
        await selfcheck.check(database)
        assert (await walls.probe(database)).holes == []
