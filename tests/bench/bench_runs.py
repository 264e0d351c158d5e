"""Durable runs per second against a peer and against the floor, on the same PostgreSQL, in turns."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from bench.engine import PLUGINS
from bench.figures import Figures
from bench.participant import Participant, take_part
from stack import Stack

ROUNDS = 3
SECONDS = 3.0
AT_ONCE = 16
BESIDE = (1, 64)
PEER_PYTHON = Path(__file__).parents[2] / ".venv-bench/bin/python"


def database(stack: Stack, name: str) -> str:
    """A database of one's own on the stack's PostgreSQL; its URL for the superuser."""
    command(stack.admin_url, f"CREATE DATABASE {name}")
    return urlsplit(stack.admin_url)._replace(path=f"/{name}").geturl()


def command(url: str, sql: str) -> None:
    """One statement by the superuser."""

    async def run() -> None:
        admin = await asyncpg.connect(url)
        await admin.execute(sql)
        await admin.close()

    asyncio.run(run())


def test_durable_runs_vs_dbos(bench_stack: Stack, figures: Figures) -> None:
    """Two-step runs, 16 in flight: a client starts one and begins anew once it has its end."""
    folder = bench_stack.folder
    own = {**bench_stack.environ, "HANSA_PLUGINS": PLUGINS, "HANSA_LOG_LEVEL": "warning"}
    theirs, bare = database(bench_stack, "dbos"), database(bench_stack, "floor")
    with (
        take_part("dbos_runs.py", {"BENCH_DATABASE": theirs}, folder / "dbos.log", python=PEER_PYTHON) as dbos,
        take_part("floor_runs.py", {"BENCH_DATABASE": bare}, folder / "floor.log") as floor,
        take_part("hansa_runs.py", own, folder / "hansa.log") as hansa,
    ):
        each: list[tuple[str, Participant, str]] = [
            ("dbos", dbos, "run"),
            ("hansa", hansa, "heard"),
            ("hansa_followed", hansa, "followed"),
            ("floor", floor, "each"),
            ("floor_grouped", floor, "grouped"),
        ]
        rates: dict[str, list[float]] = {name: [] for name, _, _ in each}
        medians: dict[str, list[float]] = {name: [] for name, _, _ in each}
        for _, participant, operation in each:
            participant.measure(operation, clients=AT_ONCE, seconds=SECONDS / 2)
        for url in (theirs, bare, bench_stack.admin_url):
            command(url, "ANALYZE")  # as autovacuum does within a minute; without it, plans are those of empty tables
        for _ in range(ROUNDS):
            for name, participant, operation in each:
                seen = participant.measure(operation, clients=AT_ONCE, seconds=SECONDS)
                rates[name].append(seen["per_second"])
                medians[name].append(seen["p50"])
        for clients in BESIDE:
            for name, participant, operation in each:
                seen = participant.measure(operation, clients=clients, seconds=SECONDS / 2)
                figures.report(f"durable_runs_{name}_at_{clients}", [seen["per_second"]], unit="runs/s")
    for name in rates:
        figures.report(f"durable_runs_{name}", rates[name], unit="runs/s")
        figures.report(f"durable_runs_{name}_p50", medians[name], unit="ms")
    for name in ("hansa_followed", "floor", "floor_grouped"):
        figures.report(f"durable_runs_{name}_vs_dbos", ratios(rates[name], rates["dbos"]), unit="x")
    assert figures.report("durable_runs_vs_dbos", ratios(rates["hansa"], rates["dbos"]), unit="x", at_least=8) >= 8


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Round by round."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]
