"""Fixtures for tests of the whole platform: one stack a session for those that leave it whole, one of its own for those that do not."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from samples import SCRIPTED
from stack import Process, Stack, open_stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """PostgreSQL and NATS, migrated, shared by all tests that leave them as they found them."""
    folder = Path(tempfile.mkdtemp(prefix="hansa-stack-"))
    with open_stack(folder) as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def control_plane(stack: Stack) -> Process:
    """One control plane for the session."""
    return stack.serve()


@pytest.fixture(scope="session")
def shared_worker(stack: Stack) -> Process:
    """One worker for the session, with short leases."""
    return stack.worker(HANSA_WORKER_LEASE_SECONDS="3", HANSA_WORKER_RENEW_SECONDS="1", HANSA_WORKER_POLL_SECONDS="0.5")


@pytest.fixture
async def api(stack: Stack, control_plane: Process, shared_worker: Process) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the session's platform, in which the scripted model can be used."""
    async with stack.client(control_plane) as client:
        answer = await client.post("/v1/objects:apply", json={"objects": [{"manifest": SCRIPTED}]})
        assert answer.json()["failed"] == 0, answer.text
        yield client


@pytest.fixture
def own_stack() -> Iterator[Stack]:
    """Servers of one's own, to be broken."""
    folder = Path(tempfile.mkdtemp(prefix="hansa-stack-"))
    with open_stack(folder) as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)
