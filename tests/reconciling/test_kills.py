"""The operator killed at each request that it makes, before it is carried out and after, at each stage of an object's life."""

import asyncio
from collections.abc import Callable
from itertools import count, product

from doubles.memory_cluster import MemoryCluster
from doubles.memory_platform import MemoryPlatform
from reconciling.leader import Core, agent, at, provider, tenant

WAVE = 12
"""So many lives are lived side by side; they mostly wait."""
Stage = Callable[[MemoryCluster], None]


def _write(cluster: MemoryCluster) -> None:
    tenant(cluster, "acme", deletionPolicy="Delete", namespaces=["acme"])
    provider(cluster, "acme")
    agent(cluster, "acme", "one")


def _change(cluster: MemoryCluster) -> None:
    agent(cluster, "acme", "one", description="changed")
    tenant(cluster, "acme", deletionPolicy="Delete", namespaces=["acme", "more"])


def _delete(cluster: MemoryCluster) -> None:
    for path in (at("Agent", "one", "acme"), at("ModelProvider", "models", "acme"), at("Tenant", "acme")):
        cluster.remove(path)


STAGES: tuple[Stage, ...] = (_write, _change, _delete)


class Killer:
    """Kills a core at its n-th request; `struck` says whether there was one."""

    def __init__(self, when: str, number: int) -> None:
        self._when = when
        self._left = number
        self.core: Core | None = None
        self.struck = False

    def __call__(self, when: str, method: str, path: str) -> None:
        if self.core is None or when != self._when or "/events" in path:
            return
        if when == "after" and method == "GET":
            return  # the same as before whatever comes next
        self._left -= 1
        if self._left < 0 and not self.struck:
            self.struck = True
            self.core.kill()
            raise asyncio.CancelledError


async def life(killed_in: int, killer: Killer) -> tuple[MemoryCluster, MemoryPlatform, list[object]]:
    """An object's life in stages, in one of which the operator is killed once and then started anew; what was there after each."""
    cluster, platform = MemoryCluster(), MemoryPlatform()
    states: list[object] = []
    for number, stage in enumerate(STAGES):
        async with Core(cluster, platform) as core:
            await core.settle()
            if number == killed_in:
                killer.core = core
                for server in (cluster, platform):
                    server.faults.append(killer)
            stage(cluster)
            for _ in range(500):
                await asyncio.sleep(0.001)
                if killer.struck or not (core.queue.depth or core.queue.running or core.queue.failing):
                    break
            killer.core = None
        async with Core(cluster, platform) as core:
            await core.settle()
        states.append(seen(cluster, platform))
    return cluster, platform, states


def seen(cluster: MemoryCluster, platform: MemoryPlatform) -> object:
    """What is there, without what tells one life from another."""
    here = {
        path: (body.get("spec"), body.get("metadata", {}).get("finalizers"), cluster.condition(path), cluster.status(path).get("tenant"))
        for path, body in cluster.objects.items()
        if "/events/" not in path
    }
    return here, dict(platform.objects), dict(platform.tenants)


async def test_killed_anywhere_it_converges_and_leaves_no_orphan() -> None:
    nobody = Killer("before", 10**9)
    _, _, wanted = await life(0, nobody)
    assert wanted[-1] == ({"/api/v1/namespaces/kube-system": (None, None, ("", ""), None)}, {}, {"default": "active"})
    kills = 0
    for stage, when in product(range(len(STAGES)), ("before", "after")):
        for first in count(step=WAVE):
            killers = [Killer(when, number) for number in range(first, first + WAVE)]
            lives = await asyncio.gather(*(life(stage, killer) for killer in killers))
            wrong = [first + number for number, (_, _, states) in enumerate(lives) if states != wanted]
            assert wrong == [], (stage, when)
            struck = sum(killer.struck for killer in killers)
            kills += struck
            if struck < WAVE:
                break
    assert kills > 60


async def test_an_operator_that_brings_before_it_holds_leaves_orphans() -> None:
    """The broken control: without the finalizer before the first effect, an object that is deleted while nobody looks is left behind."""
    cluster, platform = MemoryCluster(), MemoryPlatform()
    tenant(cluster, "acme")
    provider(cluster, "acme")
    async with Core(cluster, platform) as core:
        await core.settle()
        path = agent(cluster, "acme", "one")
        await core.settle()
    cluster.objects[path]["metadata"]["finalizers"] = []
    cluster.remove(path)
    async with Core(cluster, platform) as core:
        await core.settle()
    assert ("acme", "Agent", "one") in platform.objects
