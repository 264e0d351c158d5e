"""Many objects at once, over servers in memory: a server that is busy or fails, two who act, and what an earlier version left."""

import asyncio
import itertools

from doubles.memory_cluster import MemoryCluster
from doubles.memory_platform import MemoryPlatform
from hansa_operator.model import FINALIZER
from hansa_operator.transport import Answer
from reconciling.leader import Core, agent, at, provider, tenant


def servers() -> tuple[MemoryCluster, MemoryPlatform]:
    return MemoryCluster(), MemoryPlatform()


async def test_an_api_server_that_is_busy_is_left_alone_for_as_long_as_it_asks() -> None:
    cluster, platform = servers()
    async with Core(cluster, platform) as core:
        tenant(cluster, "acme")
        provider(cluster, "acme")
        await core.settle()
        asked = list[tuple[float, str]]()
        clock = asyncio.get_running_loop().time
        begun = clock()

        def busy(when: str, method: str, path: str) -> Answer | None:
            if when == "before" and method == "PATCH" and "/agents/" in path:
                asked.append((clock() - begun, path))
                if clock() - begun < 0.3:
                    return Answer(429, b'{"message": "too many requests"}', retry_after=0.5)
            return None

        cluster.faults.append(busy)
        for number in range(100):
            agent(cluster, "acme", f"agent-{number}")
        await core.settle()
        assert {cluster.condition(at("Agent", f"agent-{number}", "acme")) for number in range(100)} == {("True", "Ready")}
        early = [path for when, path in asked if when < 0.5]
        assert len(early) == len(set(early)) == 100  # each once, nothing about it in any status, and nobody before the time
        assert len(asked) == 300
        assert not core.survey.away  # it is there: that it answers other requests is no reason to try all of them again
        assert core.queue.failing == 0


async def test_an_api_server_that_fails_while_many_are_made_is_asked_again_until_all_are_ready() -> None:
    cluster, platform = servers()
    async with Core(cluster, platform) as core:
        tenant(cluster, "acme")
        provider(cluster, "acme")
        await core.settle()
        patches, failed = itertools.count(), list[str]()

        def failing(when: str, method: str, path: str) -> Answer | None:
            if when == "after" or method != "PATCH" or next(patches) % 3 == 0:
                return None
            failed.append(path)
            return Answer(500, b'{"message": "made up"}')

        cluster.faults.append(failing)
        for number in range(100):
            agent(cluster, "acme", f"agent-{number}")
        await core.settle()
        assert {cluster.condition(at("Agent", f"agent-{number}", "acme")) for number in range(100)} == {("True", "Ready")}
        assert len(failed) > 200
        assert len([key for key in platform.objects if key[1] == "Agent"]) == 100


async def test_what_an_earlier_version_held_and_said_is_gone_on_with() -> None:
    cluster, platform = servers()
    tenant(cluster, "acme")
    provider(cluster, "acme")
    old = agent(cluster, "acme", "old")
    cluster.objects[old]["metadata"]["finalizers"] = ["another", FINALIZER]
    said = {"type": "Ready", "status": "True", "reason": "Serving", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    cluster.objects[old]["status"] = {"observedGeneration": 1, "conditions": [said], "formerField": 3}  # and no tenant
    async with Core(cluster, platform) as core:
        await core.settle()
        assert ("acme", "Agent", "old") in platform.objects
        status = cluster.status(old)
        assert (status["tenant"], status["formerField"], status["conditions"][0]["lastTransitionTime"]) == (
            "acme",
            3,
            "2026-01-01T00:00:00Z",
        )
        assert cluster.objects[old]["metadata"]["finalizers"] == ["another", FINALIZER]
        cluster.remove(old)
        await core.settle()
        assert cluster.objects[old]["metadata"]["finalizers"] == ["another"]
        assert ("acme", "Agent", "old") not in platform.objects


async def test_two_who_act_at_once_end_where_one_would_have() -> None:
    cluster, platform = servers()
    async with Core(cluster, platform) as one, Core(cluster, platform) as two:
        tenant(cluster, "acme")
        provider(cluster, "acme")
        paths = [agent(cluster, "acme", f"agent-{number}") for number in range(50)]
        for core in (one, two, one):
            await core.settle()
        assert {cluster.condition(path) for path in paths} == {("True", "Ready")}
        assert all(cluster.objects[path]["metadata"]["finalizers"] == [FINALIZER] for path in paths)
        for path in paths:
            cluster.remove(path)
        for core in (one, two, one):
            await core.settle()
        assert not [path for path in paths if path in cluster.objects]
        assert not [key for key in platform.objects if key[1] == "Agent"]
