"""Logs with large values: bytes kept and time to replay grow with the steps, and a value that is said again costs a reference."""

import asyncio
import time
from typing import Any

import asyncpg

from bench.engine import PLUGINS, open_engine, principal
from bench.figures import Figures
from hansa.runs.replay import replay
from hansa.settings import load
from stack import Stack

ROUNDS, STEPS, SIZE = 3, 100, 4000
KEPT = """
SELECT (SELECT sum(pg_column_size(e.*)) FROM hansa.events e WHERE e.session_id = $1)
  + (SELECT sum(pg_column_size(f.*) + 100 + v.size) FROM hansa.value_refs f JOIN hansa.values v USING (tenant_id, digest)
     WHERE f.session_id = $1)
"""
"""Events, references, and values with about what their row takes beside them."""
WORKLOAD = {"HANSA_PLUGINS": PLUGINS}


async def ask(stack: Stack, sql: str, *arguments: Any) -> float:
    admin = await asyncpg.connect(stack.admin_url)
    try:
        return float(await admin.fetchval(sql, *arguments))
    finally:
        await admin.close()


async def test_replay_linear_values(bench_stack: Stack, figures: Figures) -> None:
    """Ten times the steps, each with an answer of its own of 4 KB."""
    bench_stack.worker(**WORKLOAD)
    times: dict[int, list[float]] = {STEPS: [], STEPS * 10: []}
    kept: dict[int, list[float]] = {STEPS: [], STEPS * 10: []}
    async with open_engine(load({**bench_stack.environ, **WORKLOAD, "HANSA_LOG_LEVEL": "warning"})) as engine:
        await engine.apply(principal())
        for _ in range(ROUNDS):
            for steps in times:
                run = await engine.start(principal(), "counted", {"steps": steps, "size": SIZE})
                async with asyncio.timeout(120):
                    while (await engine.find(principal(), run.id)).state != "completed":
                        await asyncio.sleep(0.2)
                begin = time.perf_counter()
                assert (await replay(engine.equipment, principal(), run.id)).equal
                times[steps].append(time.perf_counter() - begin)
                kept[steps].append(await ask(bench_stack, KEPT, run.session_id))
                assert kept[steps][-1] > steps * SIZE, "the values are counted"
    longer, slower = [[long / short for short, long in zip(each[STEPS], each[STEPS * 10], strict=True)] for each in (kept, times)]
    figures.report("replay_values_1000", [each * 1000 for each in times[STEPS * 10]], unit="ms")
    figures.report("log_bytes_a_step", [each / STEPS / 10 for each in kept[STEPS * 10]], unit="B")
    assert figures.report("replay_values_bytes", longer, unit="x", at_most=12) <= 12
    assert figures.report("replay_values_time", slower, unit="x", at_most=12) <= 12
