"""Claiming and finishing runs costs the same whatever waits behind them: a long backlog, many tenants.

Without a worker around it, on one PostgreSQL, by turns over two databases that differ in one thing.
"""

import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from bench.backlog import fill
from bench.engine import PLUGINS, Engine, open_engine, principal
from bench.figures import Figures
from db.scratch import open_scratch
from hansa.settings import PluginSettings
from stack import Stack

ROUNDS = 3
BATCHES = 16
BATCH = 8  # fewer than the tenants of either side: a claim takes one run each of eight, here and there


@asynccontextmanager
async def backlogged(stack: Stack, folder: Path, runs: int, *, tenants: int) -> AsyncIterator[Engine]:
    """An engine over a fresh database with so many ready runs of so many tenants."""
    async with open_scratch(stack, folder) as scratch:
        settings = msgspec.structs.replace(scratch.settings, plugins=PluginSettings(names=PLUGINS))
        async with open_engine(settings) as engine:
            await engine.apply(principal())
            await fill(scratch, runs, tenants=tenants)
            yield engine


async def spent(engine: Engine) -> tuple[float, float]:
    """Milliseconds that a run costs: its part of a claim of several, and its end. Medians."""
    claims: list[float] = []
    ends: list[float] = []
    for _ in range(BATCHES):
        begin = time.perf_counter()
        claimed = await engine.claim(BATCH)
        claims.append((time.perf_counter() - begin) * 1000 / BATCH)
        assert len(claimed) == BATCH
        begin = time.perf_counter()
        await engine.finish(claimed)
        ends.append((time.perf_counter() - begin) * 1000 / BATCH)
    return statistics.median(claims), statistics.median(ends)


async def compare(name: str, few: Engine, many: Engine, figures: Figures) -> float:
    """Report what a run costs over either, in turns, and the ratio of claim and end together."""
    await spent(few)
    await spent(many)
    seen = [(await spent(few), await spent(many)) for _ in range(ROUNDS)]
    for part, number in (("claim", 0), ("finish", 1)):
        figures.report(f"{name}_{part}_few", [one[number] for one, _ in seen], unit="ms")
        figures.report(f"{name}_{part}_many", [other[number] for _, other in seen], unit="ms")
        figures.report(f"{name}_{part}", [other[number] / one[number] for one, other in seen], unit="x")
    return figures.report(name, [sum(other) / sum(one) for one, other in seen], unit="x", at_most=1.2)


async def test_claim_backlog_flat(bench_stack: Stack, figures: Figures, tmp_path: Path) -> None:
    """1,000,000 queued runs against 1,000."""
    async with AsyncExitStack() as open_engines:
        few = await open_engines.enter_async_context(backlogged(bench_stack, tmp_path, 1000, tenants=1))
        many = await open_engines.enter_async_context(backlogged(bench_stack, tmp_path, 1_000_000, tenants=1))
        assert await compare("claim_backlog_flat", few, many, figures) <= 1.2


async def test_claim_tenants_flat(bench_stack: Stack, figures: Figures, tmp_path: Path) -> None:
    """10,000 tenants with ready runs against 10; 20,000 runs either way."""
    async with AsyncExitStack() as open_engines:
        few = await open_engines.enter_async_context(backlogged(bench_stack, tmp_path, 20_000, tenants=10))
        many = await open_engines.enter_async_context(backlogged(bench_stack, tmp_path, 20_000, tenants=10_000))
        assert await compare("claim_tenants_flat", few, many, figures) <= 1.2
