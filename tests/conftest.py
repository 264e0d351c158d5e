"""Fixtures for tests of the whole platform: one stack a session for those that leave it whole, one of its own for those that do not."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from kubernetes.cluster import Cluster, open_cluster, shared_cluster
from samples import SCRIPTED
from stack import Process, Stack, free_port, open_stack, prepared

CLUSTERS = frozenset({"cluster", "own_cluster"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that want a Kubernetes cluster come last, when its programs are built, and the time that they wait for that is not theirs."""
    functions = [each for each in items if isinstance(each, pytest.Function)]
    wanting = [each for each in functions if CLUSTERS & set(each.fixturenames) or each.path.parent.name == "kubernetes"]
    last = {each.path for each in wanting}
    items.sort(key=lambda each: each.path in last)
    for each in wanting:
        each.add_marker(pytest.mark.timeout(60, func_only=True))


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of the run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def migrated(run_folder: Path) -> Path:
    """What every stack may begin with: see `open_stack`."""
    return prepared(run_folder)


@pytest.fixture(scope="session")
def stack(migrated: Path) -> Iterator[Stack]:
    """PostgreSQL and NATS, migrated, shared by all tests that leave them as they found them."""
    folder = Path(tempfile.mkdtemp(prefix="hansa-stack-"))
    with open_stack(folder, like=migrated) as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def control_plane(stack: Stack) -> Process:
    """One control plane for the session."""
    return stack.serve(HANSA_METRICS_SERVE_PORT=str(free_port()))


@pytest.fixture(scope="session")
def shared_worker(stack: Stack) -> Process:
    """One worker for the session, with short leases."""
    quick = {"HANSA_WORKER_LEASE_SECONDS": "3", "HANSA_WORKER_RENEW_SECONDS": "1"}
    return stack.worker(**quick, HANSA_METRICS_WORKER_PORT=str(free_port()))


@pytest.fixture
async def api(stack: Stack, control_plane: Process, shared_worker: Process) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the session's platform, in which the scripted model can be used."""
    async with stack.client(control_plane) as client:
        answer = await client.post("/v1/objects:apply", json={"objects": [{"manifest": SCRIPTED}]})
        assert answer.json()["failed"] == 0, answer.text
        yield client


@pytest.fixture
def own_stack(migrated: Path) -> Iterator[Stack]:
    """Servers of one's own, to be broken."""
    folder = Path(tempfile.mkdtemp(prefix="hansa-stack-"))
    with open_stack(folder, like=migrated) as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster(run_folder: Path) -> Iterator[Cluster]:
    """A Kubernetes API server with Hansa's definitions, the same for all processes of the run: for tests that leave it whole."""
    with shared_cluster(run_folder) as found:
        yield found


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the session's cluster, for one test."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of one's own with Hansa's definitions, to be broken."""
    with open_cluster(tmp_path) as found:
        yield found
