"""What the audit trail costs: a change over HTTP with its row, as a multiple of the same without, and rows looked at per second."""

import asyncio
import statistics
import time
from pathlib import Path

import asyncpg
import httpx2

from bench.figures import Figures
from hansa.artifacts.folder import Folder
from hansa.audit.checkpoints import Outside
from hansa.audit.reading import Trails
from hansa.db.pool import open_database
from hansa.tenants.service import DEFAULT_TENANT, tenant_id
from samples import SCRIPTED, agent
from stack import Stack

ROUNDS, CHANGES = 5, 100
ROWS = 100_000
NOTHING = "CREATE OR REPLACE FUNCTION hansa.audit_append(p_events text[]) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint'"


async def changed(client: httpx2.AsyncClient, mark: str) -> float:
    """Seconds of the median change of an agent."""
    times: list[float] = []
    for number in range(CHANGES):
        manifest = agent("changed", description=f"{mark} {number}")
        begin = time.perf_counter()
        answer = await client.post("/v1/objects:apply", json={"objects": [{"manifest": manifest}]})
        times.append(time.perf_counter() - begin)
        assert answer.json()["failed"] == 0, answer.text
    return statistics.median(times)


async def measured(stack: Stack) -> dict[str, list[float]]:
    owner = await asyncpg.connect(stack.admin_url)
    real = await owner.fetchval("SELECT pg_get_functiondef('hansa.audit_append(text[])'::regprocedure)")
    found: dict[str, list[float]] = {"audited": [], "unaudited": []}
    async with stack.client(stack.serve(HANSA_LOG_LEVEL="warning")) as client:
        assert (await client.post("/v1/objects:apply", json={"objects": [{"manifest": SCRIPTED}]})).json()["failed"] == 0
        await changed(client, "warm-up")
        for number in range(ROUNDS):
            for kind, sql in (("unaudited", NOTHING), ("audited", real)):
                await owner.execute(sql)
                found[kind].append(await changed(client, f"{kind} {number}"))
    await owner.close()
    return found


def test_audit_cost(bench_stack: Stack, figures: Figures) -> None:
    """An agent that is applied with another content, one request after the other."""
    found = asyncio.run(measured(bench_stack))
    figures.report("apply_audited_p50", [each * 1000 for each in found["audited"]], unit="ms")
    ratios = [one / other for one, other in zip(found["audited"], found["unaudited"], strict=True)]
    figures.report("audit_cost", ratios, unit="x")


async def looked_at(stack: Stack, folder: Path) -> list[float]:
    owner = await asyncpg.connect(stack.admin_url)
    await owner.execute("SELECT set_config('hansa.tenant', $1, false)", str(tenant_id(DEFAULT_TENANT)))
    event = '{"action":"object.changed","actor":{"name":"key:x"},"origin":{},"outcome":"done","target":"Agent/a"}'
    for _ in range(ROWS // 1000):
        await owner.execute("SELECT hansa.audit_append($1)", [event] * 1000)
    await owner.close()
    rates: list[float] = []
    async with open_database(stack.settings.database) as database:
        trails = Trails(database, Outside(Folder(folder)), frozenset())
        for _ in range(3):
            begin = time.perf_counter()
            verdict = await trails.verify(tenant_id(DEFAULT_TENANT))
            rates.append(verdict.rows / (time.perf_counter() - begin))
            assert (verdict.ok, verdict.rows >= ROWS) == (True, True)
    return rates


def test_audit_verified(bench_stack: Stack, figures: Figures, tmp_path: Path) -> None:
    """A trail of 100,000 rows is looked at, row by row."""
    figures.report("audit_verified", asyncio.run(looked_at(bench_stack, tmp_path)), unit="rows/s")
