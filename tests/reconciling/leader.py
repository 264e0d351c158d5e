"""The operator's core over servers in memory: started, settled, killed, and started anew over the same."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from doubles.memory_cluster import MemoryCluster
from doubles.memory_platform import MemoryPlatform
from hansa_operator.cluster import Cluster
from hansa_operator.credentials import Credentials
from hansa_operator.desk import Desk
from hansa_operator.events import Events
from hansa_operator.index import Index
from hansa_operator.intake import Intake
from hansa_operator.metrics import Metrics
from hansa_operator.model import Key
from hansa_operator.platform import Key as ApiKey
from hansa_operator.platform import Platform
from hansa_operator.reconciler import Reconciler
from hansa_operator.settings import OperatorSettings
from hansa_operator.survey import Survey
from hansa_operator.tenancy import Tenancy
from hansa_operator.workqueue import WorkQueue
from hansa_operator.writer import Writer

SETTINGS = OperatorSettings(url="http://x", key_file="x", backoff_least_seconds=0.02, backoff_most_seconds=0.1, resync_seconds=3600)
PLURALS = {"tenants": "Tenant", "agents": "Agent", "modelproviders": "ModelProvider", "toolservers": "ToolServer", "regions": "Region"}
PLURALS["namespaces"] = "Namespace"
AGENT = {"instructions": "Answer.", "model": {"alias": "small"}}
PROVIDER = {"plugin": "scripted", "models": [{"name": "tiny", "aliases": ["small"]}]}


class Core:
    """One process's core. `async with` it."""

    def __init__(self, cluster: MemoryCluster, platform: MemoryPlatform, *, shared: str = "") -> None:
        self.index = Index()
        self.metrics = Metrics()
        self._cluster = cluster
        api = Cluster(cluster)
        self.platform = Platform(platform, ApiKey(Path("x"), "x"), batch=200, sent=self.metrics.request)
        self.platform.origin = "this-cluster"
        events = Events(api, self.metrics, "test")
        self.queue = WorkQueue(self._work, concurrency=64, least=0.02, most=0.1)
        desk = Desk(api, self.platform, self.index, events, self.metrics, self.queue.wake, lambda server: self.survey.outage(server))
        tenancy = Tenancy(desk, namespace="hansa-system", shared=shared, subject="operator")
        self._credentials = Credentials(desk)
        self.reconciler = Reconciler(desk, Writer(desk, lambda: self.now), tenancy, self._credentials)
        self.intake = Intake(self.index, self.queue)
        self.survey = Survey(SETTINGS, desk, intake=self.intake, queue=self.queue, reconciler=self.reconciler, restart=self._restart)
        self.restarts = 0
        self.reconciled = Counter[Key]()
        self.now = "2026-11-30T12:00:00Z"
        self._events = events
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Core":
        await self.survey.load()
        self._cluster.listeners.append(self._seen)
        self._tasks = [asyncio.create_task(each) for each in (self.queue.run(), self._events.run())]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()
        await self.queue.close(0)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._credentials.close()
        await self.platform.close()

    def kill(self) -> None:
        """Hear nothing more, and stop where it stands."""
        if self._seen in self._cluster.listeners:
            self._cluster.listeners.remove(self._seen)
        for task in self._tasks:
            task.cancel()

    async def settle(self, patience: float = 10.0) -> None:
        """Wait until there is nothing to do now."""
        end = time.monotonic() + patience
        quiet = 0
        while quiet < 3:  # events are on their way for a moment
            assert time.monotonic() < end, (
                f"not settled: {self.queue.depth} due, {self.queue.running} running, {self.queue.failing} failing"
            )
            await asyncio.sleep(0.01)
            quiet = quiet + 1 if not (self.queue.depth or self.queue.running or self.queue.failing) else 0

    async def _work(self, key: Key) -> float | None:
        self.reconciled[key] += 1
        return await self.reconciler.reconcile(key)

    async def _restart(self) -> None:
        self.restarts += 1

    def _seen(self, type_: str, path: str, body: dict[str, Any]) -> None:
        kind = PLURALS.get(path.split("/")[-2])
        if kind is None:
            return
        if type_ == "DELETED":
            self.intake.gone(Key(kind, body["metadata"].get("namespace", ""), body["metadata"]["name"]))
        else:
            self.intake.seen(kind, body)


def at(kind: str, name: str, namespace: str = "") -> str:
    """Where an object of ours is kept."""
    return Key(kind, namespace, name).path


def tenant(cluster: MemoryCluster, name: str, **spec: Any) -> str:
    """Write a Tenant; its path."""
    cluster.put(at("Tenant", name), {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "spec": spec})
    return at("Tenant", name)


def provider(cluster: MemoryCluster, namespace: str, name: str = "models", **spec: Any) -> str:
    """Write a ModelProvider that has the alias `small`; its path."""
    body = {"apiVersion": "hansa.dev/v1alpha1", "kind": "ModelProvider", "spec": {**PROVIDER, **spec}}
    cluster.put(at("ModelProvider", name, namespace), body)
    return at("ModelProvider", name, namespace)


def servers() -> tuple[MemoryCluster, MemoryPlatform]:
    """Empty ones, in memory."""
    return MemoryCluster(), MemoryPlatform()


def agent(cluster: MemoryCluster, namespace: str, name: str, **spec: Any) -> str:
    """Write an Agent; its path."""
    body = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Agent", "spec": {**AGENT, **spec}}
    cluster.put(at("Agent", name, namespace), body)
    return at("Agent", name, namespace)


async def until(true: Callable[[], bool], patience: float = 5.0) -> None:
    """Wait for something to be so."""
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, "it is not so"
        await asyncio.sleep(0.01)
