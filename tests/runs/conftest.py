"""The engine's platform, one a session; workers are each test's or module's own."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from runs.engine import Engine
from stack import Process, open_stack


@pytest.fixture(scope="session")
def engine(migrated: Path) -> Iterator[Engine]:
    """Servers and a control plane; tests may hurt the servers when they wait for their return."""
    folder = Path(tempfile.mkdtemp(prefix="hansa-engine-"))
    with open_stack(folder, like=migrated) as stack:
        yield Engine(stack)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the engine's control plane."""
    async with engine.client() as opened:
        yield opened


@pytest.fixture
def worker(engine: Engine) -> Iterator[Callable[..., Process]]:
    """Starts workers that end with the test."""
    started: list[Process] = []

    def start(**extra: str) -> Process:
        started.append(engine.worker(**extra))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture(scope="module")
def steady(engine: Engine) -> Iterator[Process]:
    """One worker for all tests of a module that leave it whole."""
    process = engine.worker()
    yield process
    process.stop()
