"""What the engine adds to a run: time around each step, time until a run is begun, length of the log; and what one tenant's flood
does to another. Real worker processes; runs are started, and the database is asked, by the bench.
"""

import asyncio
import json
import time
from typing import Any

import asyncpg

from bench.closed_loop import quantile
from bench.engine import PLUGINS, Engine, open_engine, principal
from bench.figures import Figures
from hansa.auth.model import Principal
from hansa.runs.replay import replay
from hansa.settings import load
from stack import Stack

ROUNDS = 3
STEPS = 100
WAKES = 60
SLOTS = 4
WORK_SECONDS = 0.1
FLOOD_SECONDS = 6.0
NEIGHBOUR_RATE = 8.0
NEIGHBOUR = "neighbour"
TENANT = "INSERT INTO hansa.tenants (tenant_id, name) VALUES ($1, $2)"
WAITED = """
SELECT extract(epoch FROM b.at - a.at) * 1000 FROM hansa.events a JOIN hansa.events b USING (tenant_id, session_id, run_id)
WHERE a.type = 'run.queued' AND b.type = 'run.started' AND run_id = ANY($1)
"""
SPENT = "SELECT extract(epoch FROM finished_at - created_at) * 1000 FROM hansa.runs WHERE id = ANY($1) ORDER BY 1"
UNFINISHED = "SELECT count(*) FROM hansa.runs WHERE id = ANY($1) AND finished_at IS NULL"
DROPPED = "UPDATE hansa.runs SET state = 'canceled', finished_at = clock_timestamp() WHERE state = 'queued' AND tenant_id = $1"
LENGTH = "SELECT sum(pg_column_size(e.*)) FROM hansa.events e WHERE run_id = $1"
WORKLOAD = {"HANSA_PLUGINS": PLUGINS}


def settings(stack: Stack) -> Any:
    return load({**stack.environ, **WORKLOAD, "HANSA_LOG_LEVEL": "warning"})


async def ask(stack: Stack, sql: str, *arguments: Any) -> list[Any]:
    """The first column of what the database answers to its superuser."""
    admin = await asyncpg.connect(stack.admin_url)
    rows = await admin.fetch(sql, *arguments)
    await admin.close()
    return [row[0] for row in rows]


async def test_step_overhead(bench_stack: Stack, figures: Figures) -> None:
    """Milliseconds that a step takes whose own work is nothing: intent and result, each durable. One run at a time."""
    bench_stack.worker(**WORKLOAD)
    medians: list[float] = []
    async with open_engine(settings(bench_stack)) as engine:
        await engine.apply(principal())
        for _ in range(ROUNDS + 1):
            run = await engine.start(principal(), "steps", {"steps": STEPS})
            await _ended(bench_stack, [run.id])
            medians.append(quantile(sorted(json.loads(await engine.runs.get(principal(), run.id))["output"]), 0.5))
    figures.report("step_overhead_p50", medians[1:], unit="ms")


async def test_wake_up(bench_stack: Stack, figures: Figures) -> None:
    """From the row of an accepted run to its first event by an idle worker, the commit in between included."""
    bench_stack.worker(**WORKLOAD)
    waited: list[list[float]] = []
    async with open_engine(settings(bench_stack)) as engine:
        await engine.apply(principal())
        for _ in range(ROUNDS + 1):
            ids: list[Any] = []
            for _ in range(WAKES):
                ids.append((await engine.start(principal(), "counted", {"steps": 0})).id)
                await asyncio.sleep(0.03)
            await _ended(bench_stack, ids)
            waited.append(sorted(float(each) for each in await ask(bench_stack, WAITED, ids)))
            assert len(waited[-1]) == WAKES
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        figures.report(f"wake_up_{name}", [quantile(each, part) for each in waited[1:]], unit="ms")


async def test_replay_linear(bench_stack: Stack, figures: Figures) -> None:
    """Ten times the steps: the log's bytes and the time of a replay grow by as much, and little more."""
    bench_stack.worker(**WORKLOAD)
    times: dict[int, list[float]] = {STEPS: [], STEPS * 10: []}
    lengths: dict[int, float] = {}
    async with open_engine(settings(bench_stack)) as engine:
        await engine.apply(principal())
        runs = {steps: await engine.start(principal(), "counted", {"steps": steps}) for steps in times}
        await _ended(bench_stack, [run.id for run in runs.values()])
        for steps, run in runs.items():
            lengths[steps] = float((await ask(bench_stack, LENGTH, run.id))[0])
        for _ in range(ROUNDS + 1):
            for steps, run in runs.items():
                begin = time.perf_counter()
                assert (await replay(engine.equipment, principal(), run.id)).equal
                times[steps].append(time.perf_counter() - begin)
    ratios = [long / short for short, long in zip(times[STEPS][1:], times[STEPS * 10][1:], strict=True)]
    longer = figures.report("replay_linear_bytes", [lengths[STEPS * 10] / lengths[STEPS]], unit="x", at_most=12)
    slower = figures.report("replay_linear_time", ratios, unit="x", at_most=12)
    assert max(longer, slower) <= 12


async def test_noisy_neighbour(bench_stack: Stack, figures: Figures) -> None:
    """Two tenants, one worker with four slots and runs of 100 ms: a share is 20 runs a second. One asks for 8, the other for 200."""
    bench_stack.worker(**WORKLOAD, HANSA_WORKER_CONCURRENCY=str(SLOTS))
    alone: list[float] = []
    beside: list[float] = []
    async with open_engine(settings(bench_stack)) as engine:
        quiet, loud = principal(NEIGHBOUR), principal()
        await ask(bench_stack, TENANT, quiet.tenant_id, NEIGHBOUR)
        await engine.apply(quiet)
        await engine.apply(loud)
        await _p95(bench_stack, engine, quiet)
        for _ in range(ROUNDS):
            alone.append(await _p95(bench_stack, engine, quiet))
            beside.append(await _p95(bench_stack, engine, quiet, flood=(loud, 10 * SLOTS / WORK_SECONDS / 2)))
    figures.report("noisy_neighbour_alone_p95", alone, unit="ms")
    figures.report("noisy_neighbour_beside_p95", beside, unit="ms")
    ratios = [other / one for one, other in zip(alone, beside, strict=True)]
    assert figures.report("noisy_neighbour", ratios, unit="x", at_most=2) <= 2


async def _p95(stack: Stack, engine: Engine, caller: Principal, *, flood: tuple[Principal, float] | None = None) -> float:
    """The latency of a tenant's runs, from accept to end, at the neighbour's rate; what is left of a flood is dropped after it."""
    others = asyncio.create_task(_offer(engine, *flood)) if flood is not None else None
    ids = await _offer(engine, caller, NEIGHBOUR_RATE)
    if others is not None and flood is not None:
        await others
        await ask(stack, DROPPED, flood[0].tenant_id)
    await _ended(stack, ids)
    return quantile([float(each) for each in await ask(stack, SPENT, ids)], 0.95)


async def _offer(engine: Engine, caller: Principal, rate: float) -> list[Any]:
    """Start runs at a rate, whatever becomes of them; their ids."""
    starts: list[asyncio.Task[Any]] = []
    begin = asyncio.get_running_loop().time()
    for number in range(int(rate * FLOOD_SECONDS)):
        await asyncio.sleep(begin + number / rate - asyncio.get_running_loop().time())
        starts.append(asyncio.create_task(engine.start(caller, "counted", {"steps": 1, "seconds": WORK_SECONDS})))
    return [run.id for run in await asyncio.gather(*starts)]


async def _ended(stack: Stack, ids: list[Any]) -> None:
    deadline = time.monotonic() + 120
    while (await ask(stack, UNFINISHED, ids))[0]:
        assert time.monotonic() < deadline, "the runs do not end"
        await asyncio.sleep(0.1)
