"""One cluster, one control plane and one operator for all tests of it as a process."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from kubernetes.cluster import open_cluster
from reconciling.rig import Rig, open_rig
from stack import Process, Stack


@pytest.fixture(scope="session")
def rig(stack: Stack, control_plane: Process, shared_worker: Process) -> Iterator[Rig]:
    """See `reconciling.rig`. The operator is started; a test that ends it starts another."""
    headers = {"authorization": f"Bearer {stack.key}"}
    made = {"name": "operator", "roles": ["reconciler"]}
    answer = httpx2.post(f"{control_plane.url}/v1/api-keys", json=made, headers=headers, trust_env=False, verify=False)
    assert answer.status_code == 201, answer.text
    folder = Path(tempfile.mkdtemp(prefix="hansa-operator-"))
    with open_cluster(folder / "cluster") as cluster, open_rig(cluster, folder, control_plane.url, answer.json()["key"]) as found:
        found.start().wait_for("leading")
        yield found
    shutil.rmtree(folder, ignore_errors=True)
