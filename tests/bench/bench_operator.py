"""The operator between a real API server and a real control plane: 1,000 Agents written at once, changed at once, missed while it was away,
deleted at once; the memory it takes. First as it is installed, then with the optional policy that puts the operator's finalizer.

All of it shares the machine: API server, etcd, PostgreSQL, control plane, the operator, and whoever writes with 16 clients at once. What is
ready is heard by a list and a watch after it, as `kubectl wait` hears it.
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
import msgspec
import pytest

from bench.figures import Figures
from kubernetes.cluster import Cluster, open_cluster
from reconciling.rig import ADMISSION, OperatorProcess, Rig, open_rig, place
from reconciling.rig import until as wait
from stack import Stack

AGENTS = 1000
MISSED = 50
CLIENTS = 16
ROUNDS = 3
TENANT = "bench"
COLLECTION = f"/apis/hansa.dev/v1alpha1/namespaces/{TENANT}/agents"
AS_SHIPPED = {f"HANSA_OPERATOR_{name}_SECONDS": "" for name in ("LEASE", "RENEW", "LOOK", "STATE", "BACKOFF_LEAST", "BACKOFF_MOST")}
MERGE = {"content-type": "application/merge-patch+json"}


class Condition(msgspec.Struct, frozen=True):
    type: str
    status: str


class Status(msgspec.Struct, frozen=True, rename="camel"):
    observed_generation: int = -1
    conditions: tuple[Condition, ...] = ()


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    resource_version: str = ""
    generation: int = 0


class Agent(msgspec.Struct, frozen=True):
    """An Agent, as far as it is looked at here."""

    metadata: Meta
    status: Status = Status()


def is_ready(agent: Agent) -> bool:
    """Whether it is ready as it was written last."""
    judged = agent.status.observed_generation == agent.metadata.generation
    return judged and any(each.type == "Ready" and each.status == "True" for each in agent.status.conditions)


class Page(msgspec.Struct, frozen=True):
    metadata: Meta
    items: list[Agent]


class Event(msgspec.Struct, frozen=True):
    type: str
    object: Agent


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


async def listed(client: httpx2.AsyncClient) -> tuple[dict[str, Agent], str]:
    """All Agents by name, and the version of that."""
    answer = (await client.get(COLLECTION)).raise_for_status()
    page = msgspec.json.decode(answer.content, type=Page)
    return {each.metadata.name: each for each in page.items}, page.metadata.resource_version


async def until(client: httpx2.AsyncClient, count: int, right: Callable[[Agent], bool], patience: float = 240.0) -> None:
    """Wait until there are so many Agents, and all of them are right."""
    decoder = msgspec.json.Decoder(Event)
    async with asyncio.timeout(patience):
        while True:  # the API server ends a watch when it likes
            found, version = await listed(client)
            wrong = {name for name, each in found.items() if not right(each)}
            names = set(found)
            if len(names) == count and not wrong:
                return
            async with client.stream("GET", COLLECTION, params={"watch": "true", "resourceVersion": version}, timeout=patience) as stream:
                async for line in stream.aiter_lines():
                    event = decoder.decode(line)
                    name = event.object.metadata.name
                    (names.discard if event.type == "DELETED" else names.add)(name)
                    (wrong.discard if event.type == "DELETED" or right(event.object) else wrong.add)(name)
                    if len(names) == count and not wrong:
                        return


async def all_of(numbers: range, work: Callable[[int], Awaitable[httpx2.Response]]) -> None:
    """Do it for each number, some at a time."""
    left = list(numbers)

    async def some() -> None:
        while left:
            answer = await work(left.pop())
            assert answer.is_success, answer.text

    await asyncio.gather(*(some() for _ in range(CLIENTS)))


def mebibytes(process: OperatorProcess, field: str) -> float:
    """Of /proc/PID/status: VmRSS, or VmHWM, the most it ever was."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def manifest(number: int) -> dict[str, Any]:
    spec = {"instructions": "Answer in one sentence, and say where you have it from.", "model": {"alias": "small"}}
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": "Agent", "metadata": {"name": f"agent-{number}"}, "spec": spec}


async def created(client: httpx2.AsyncClient) -> float:
    """Seconds from the first of 1,000 Agents to the last that is ready."""
    begin = time.perf_counter()
    await all_of(range(AGENTS), lambda number: client.post(COLLECTION, json=manifest(number)))
    await until(client, AGENTS, is_ready)
    return time.perf_counter() - begin


async def change(client: httpx2.AsyncClient, number: int, text: str) -> httpx2.Response:
    return await client.patch(f"{COLLECTION}/agent-{number}", json={"spec": {"description": text}}, headers=MERGE)


async def changed(client: httpx2.AsyncClient) -> float:
    """The same of 1,000 changes."""
    begin = time.perf_counter()
    await all_of(range(AGENTS), lambda number: change(client, number, "changed"))
    await until(client, AGENTS, lambda each: is_ready(each) and each.metadata.generation == 2)
    return time.perf_counter() - begin


async def deleted(client: httpx2.AsyncClient) -> float:
    """Seconds from the first deletion to the last Agent that is gone."""
    begin = time.perf_counter()
    await all_of(range(AGENTS), lambda number: client.delete(f"{COLLECTION}/agent-{number}"))
    await until(client, 0, is_ready)
    return time.perf_counter() - begin


async def restarted(client: httpx2.AsyncClient, start: Callable[[], OperatorProcess]) -> tuple[OperatorProcess, float, int]:
    """The next operator, the seconds until it has brought what was missed, and to how many objects beside these it has written."""
    await all_of(range(MISSED), lambda number: change(client, number, "missed"))
    before, _ = await listed(client)
    begin = time.perf_counter()
    operator = start()
    await until(client, AGENTS, is_ready)
    took = time.perf_counter() - begin
    await asyncio.sleep(3)
    after, _ = await listed(client)
    written = [name for name, each in after.items() if before[name].metadata.resource_version != each.metadata.resource_version]
    return operator, took, len(written) - MISSED


async def test_a_thousand_agents_of_a_cluster(bench_rig: Rig, figures: Figures) -> None:
    rig, held = bench_rig, dict[str, bool]()

    def report(name: str, values: list[float], unit: str, at_most: float) -> None:
        held[name] = figures.report(name, values, unit=unit, at_most=at_most) <= at_most

    def start() -> OperatorProcess:
        return rig.start(behind=False, **AS_SHIPPED)

    operator = start()
    operator.wait_for("leading")
    rig.comes(rig.put("Tenant", TENANT, {"deletionPolicy": "Delete"}), "True", "NamespacesMade", type_="NamespacesReady")
    rig.comes(rig.provider(TENANT), "True")
    figures.report("operator_idle_memory", [mebibytes(operator, "VmRSS")], unit="MiB")
    creates, updates, deletes = list[float](), list[float](), list[float]()
    async with writer(rig.cluster) as client:
        for number in range(ROUNDS):
            creates.append(await created(client))
            updates.append(await changed(client))
            if number < ROUNDS - 1:
                deletes.append(await deleted(client))
        report("operator_create_1000_ready", creates, "s", 15)
        report("operator_update_1000_ready", updates, "s", 15)
        report("operator_memory", [mebibytes(operator, "VmHWM")], "MiB", 130)
        assert operator.terminate() == 0
        operator, took, more = await restarted(client, start)
        report("operator_restart_50_missed", [took], "s", 5)
        report("operator_restart_writes", [more], "objects", 0)
        deletes.append(await deleted(client))
        report("operator_delete_1000", deletes, "s", 15)
        rig.cluster.kubectl("apply", "-f", str(ADMISSION))
        admitted = place("Agent", "", "default").rstrip("/") + "?dryRun=All"
        wait(lambda: "hansa.dev/operator" in rig.admin.post(admitted, json=manifest(0)).text, 90, what="objects held from the start")
        report("operator_create_1000_by_policy", [await created(client)], "s", 12)
        assert operator.terminate() == 0
    assert all(held.values()), held
