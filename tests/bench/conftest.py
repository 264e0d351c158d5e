"""Fixtures of the benches: the figures of this run, servers of its own, and the load generator."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.figures import Figures
from stack import Stack, open_stack

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def figures() -> Iterator[Figures]:
    found = Figures()
    yield found
    found.close()


@pytest.fixture
def bench_stack() -> Iterator[Stack]:
    """PostgreSQL and NATS as `hansa up` configures them, fsync and synchronous_commit on; fresh for each bench."""
    folder = Path(tempfile.mkdtemp(prefix="hansa-bench-"))
    with open_stack(folder, forked=False) as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def loadgen() -> Path:
    """The load generator, built. It is in Go so that it takes little of the processor that it shares with what it measures."""
    program = ROOT / ".cache/bench/loadgen"
    program.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["go", "build", "-o", program, "."], cwd=Path(__file__).parent / "loadgen", check=True, timeout=300)
    return program
