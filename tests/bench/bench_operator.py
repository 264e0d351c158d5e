"""The operator between a real API server and a real control plane: 1,000 Agents written at once, changed at once, missed while it was away,
deleted at once; the memory it takes.

All of it shares the machine: API server, etcd, PostgreSQL, control plane, the operator, and whoever writes with 16 clients at once.
"""

import asyncio
import re
import shutil
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bench.figures import Figures
from kubernetes.cluster import Cluster, open_cluster
from reconciling.rig import ADMISSION, OperatorProcess, Rig, open_rig, place
from reconciling.rig import until as wait
from stack import Stack

AGENTS = 1000
MISSED = 50
CLIENTS = 16
TENANT = "bench"
COLLECTION = f"/apis/hansa.dev/v1alpha1/namespaces/{TENANT}/agents"
AS_SHIPPED = {f"HANSA_OPERATOR_{name}_SECONDS": "" for name in ("LEASE", "RENEW", "LOOK", "STATE", "BACKOFF_LEAST", "BACKOFF_MOST")}


@pytest.fixture
def bench_rig(bench_stack: Stack) -> Iterator[Rig]:
    """A cluster, a control plane, and the way of the operator to both without a proxy between."""
    control_plane = bench_stack.serve()
    bench_stack.worker()
    headers = {"authorization": f"Bearer {bench_stack.key}"}
    made = {"name": "operator", "roles": ["reconciler"]}
    key = httpx2.post(f"{control_plane.url}/v1/api-keys", json=made, headers=headers, trust_env=False).json()["key"]
    folder = Path(tempfile.mkdtemp(prefix="hansa-bench-"))
    with open_cluster(folder / "cluster") as cluster, open_rig(cluster, folder, control_plane.url, key) as rig:
        cluster.kubectl("apply", "-f", str(ADMISSION))
        admitted = place("Agent", "", "default").rstrip("/") + "?dryRun=All"
        wait(lambda: "hansa.dev/operator" in rig.admin.post(admitted, json=manifest(0)).text, 90, what="objects held from the start")
        yield rig
    shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def writer(cluster: Cluster) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the API server that may do everything."""
    trust = ssl.create_default_context(cafile=cluster.ca)
    admin = cluster.kubeconfig_admin.read_text()
    paths = [re.search(rf"client-{each}: (.+)", admin) for each in ("certificate", "key")]
    trust.load_cert_chain(*(str(found[1]) for found in paths if found))
    async with httpx2.AsyncClient(base_url=cluster.url, verify=trust, trust_env=False, timeout=60) as client:
        yield client


async def all_of(numbers: range, work: Callable[[int], Awaitable[httpx2.Response]]) -> None:
    """Do it for each number, some at a time."""
    left = list(numbers)

    async def some() -> None:
        while left:
            answer = await work(left.pop())
            assert answer.is_success, answer.text

    await asyncio.gather(*(some() for _ in range(CLIENTS)))


async def agents(client: httpx2.AsyncClient) -> list[dict[str, Any]]:
    return (await client.get(COLLECTION, params={"limit": "2000"})).json()["items"]


def is_ready(found: dict[str, Any]) -> bool:
    status = found.get("status", {})
    conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
    return status.get("observedGeneration") == found["metadata"]["generation"] and conditions.get("Ready") == "True"


async def until(client: httpx2.AsyncClient, true: Callable[[list[dict[str, Any]]], bool], patience: float = 240.0) -> None:
    """Wait for all Agents to be so; looks are few, for a list of them all takes the API server a tenth of a second of a core."""
    end = time.perf_counter() + patience
    while not true(await agents(client)):
        assert time.perf_counter() < end, "not within the patience of this bench"
        await asyncio.sleep(0.8)


def mebibytes(process: OperatorProcess, field: str) -> float:
    """Of /proc/PID/status: VmRSS, or VmHWM, the most it ever was."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def manifest(number: int) -> dict[str, Any]:
    spec = {"instructions": "Answer in one sentence, and say where you have it from.", "model": {"alias": "small"}}
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": "Agent", "metadata": {"name": f"agent-{number}"}, "spec": spec}


async def test_a_thousand_agents_of_a_cluster(bench_rig: Rig, figures: Figures) -> None:
    rig, held = bench_rig, dict[str, bool]()
    merge = {"content-type": "application/merge-patch+json"}
    operator = rig.start(behind=False, **AS_SHIPPED)
    operator.wait_for("leading")
    rig.comes(rig.put("Tenant", TENANT, {"deletionPolicy": "Delete"}), "True", "NamespacesMade", type_="NamespacesReady")
    rig.comes(rig.provider(TENANT), "True")
    figures.report("operator_idle_memory", [mebibytes(operator, "VmRSS")], unit="MiB")
    async with writer(rig.cluster) as client:
        begin = time.perf_counter()
        await all_of(range(AGENTS), lambda number: client.post(COLLECTION, json=manifest(number)))
        figures.report("operator_create_calls", [time.perf_counter() - begin], unit="s")
        await until(client, lambda found: len(found) == AGENTS and all(map(is_ready, found)))
        held["operator_create_1000_ready"] = (
            figures.report("operator_create_1000_ready", [time.perf_counter() - begin], unit="s", at_most=15) <= 15
        )

        async def change(number: int, text: str) -> httpx2.Response:
            return await client.patch(f"{COLLECTION}/agent-{number}", json={"spec": {"description": text}}, headers=merge)

        begin = time.perf_counter()
        await all_of(range(AGENTS), lambda number: change(number, "changed"))
        await until(client, lambda found: all(map(is_ready, found)))
        held["operator_update_1000_ready"] = (
            figures.report("operator_update_1000_ready", [time.perf_counter() - begin], unit="s", at_most=15) <= 15
        )
        held["operator_memory"] = figures.report("operator_memory", [mebibytes(operator, "VmHWM")], unit="MiB", at_most=130) <= 130

        assert operator.terminate() == 0
        await all_of(range(MISSED), lambda number: change(number, "missed"))
        before = {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in await agents(client)}
        begin = time.perf_counter()
        operator = rig.start(behind=False, **AS_SHIPPED)
        await until(client, lambda found: all(map(is_ready, found)))
        held["operator_restart_50_missed"] = (
            figures.report("operator_restart_50_missed", [time.perf_counter() - begin], unit="s", at_most=5) <= 5
        )
        await asyncio.sleep(3)
        written = [each for each in await agents(client) if before[each["metadata"]["name"]] != each["metadata"]["resourceVersion"]]
        held["operator_restart_writes"] = figures.report("operator_restart_writes", [len(written) - MISSED], unit="objects", at_most=0) <= 0

        begin = time.perf_counter()
        await all_of(range(AGENTS), lambda number: client.delete(f"{COLLECTION}/agent-{number}"))
        await until(client, lambda found: not found)
        held["operator_delete_1000"] = figures.report("operator_delete_1000", [time.perf_counter() - begin], unit="s", at_most=15) <= 15
        assert operator.terminate() == 0
    assert all(held.values()), held
