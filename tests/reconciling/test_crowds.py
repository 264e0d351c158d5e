"""Many objects at once, over servers in memory: a server that is busy or fails, two who act, what an earlier version left, and a resync."""

import asyncio
import itertools
from collections import Counter

import pytest

from doubles.memory_cluster import MemoryCluster
from doubles.memory_platform import MemoryPlatform
from hansa_operator.model import FINALIZER, Key, found_of
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


class Watched:
    """What one core does, beginning with `clear`: requests to both servers, by what they are for, and the keys that it reconciles."""

    def __init__(self, cluster: MemoryCluster, platform: MemoryPlatform, core: Core) -> None:
        self.requests = Counter[str]()
        self.keys = core.reconciled
        self.clear()
        for server in (cluster, platform):
            server.faults.append(self._asked)

    def clear(self) -> None:
        self.requests.clear()
        self.keys.clear()

    def _asked(self, when: str, method: str, path: str) -> None:
        if when == "before":
            self.requests[f"{method} {path.split('?')[0]}"] += 1


def serving(platform: MemoryPlatform, name: str, revision: int = 1, status: str = "True") -> None:
    """How the control plane says that an agent is."""
    said = {"type": "Ready", "status": status, "reason": "Serving", "message": "", "lastTransitionTime": "t"}
    platform.statuses["acme", "Agent", name] = {"conditions": [said], "revision": {"desired": revision, "serving": revision}}


async def resync(core: Core) -> None:
    await core.survey.load()
    await core.survey.compare()
    await core.settle()


LOOKS = {"Agent", "ModelProvider", "Region", "Tenant", "ToolServer", "Namespace"}
"""Kinds whose objects are listed from the API server."""
TENANT = Key("Tenant", "", "acme")


async def test_a_resync_of_what_is_as_it_should_be_costs_the_same_for_few_and_many() -> None:
    costs = list[Counter[str]]()
    for count in (10, 1000):
        cluster, platform = servers()
        tenant(cluster, "acme")
        provider(cluster, "acme")
        for number in range(count):
            serving(platform, f"agent-{number}")
            agent(cluster, "acme", f"agent-{number}")
        async with Core(cluster, platform) as core:
            await core.settle()
            watched = Watched(cluster, platform, core)
            cluster.writes.clear()
            await resync(core)
            assert cluster.writes == []
            assert watched.keys == {TENANT: 1}  # what it has in the cluster is seen one by one
            assert watched.requests["GET /v1/objects"] == 4  # a list for each kind
            assert sum("hansa.dev/v1alpha1" in each or each == "GET /api/v1/namespaces" for each in watched.requests) == len(LOOKS)
            costs.append(watched.requests.copy())
            watched.clear()
            core.queue.wake(core.index.objects)  # the broken control: as it would be if all were looked at
            await core.settle()
            assert len(watched.keys) == count + 2
            assert (watched.requests["GET /v1/objects"] > 4) == (count == 1000)
    assert costs[0] == costs[1]
    assert sum(costs[1].values()) < 20


async def test_a_resync_reconciles_what_differs_and_asks_for_nothing_twice() -> None:
    cluster, platform = servers()
    tenant(cluster, "acme")
    provider(cluster, "acme")
    paths = [agent(cluster, "acme", f"agent-{number}") for number in range(200)]
    for number in range(200):
        serving(platform, f"agent-{number}")
    async with Core(cluster, platform) as core:
        await core.settle()
        watched = Watched(cluster, platform, core)
        del platform.objects["acme", "Agent", "agent-0"]
        stored = platform.objects["acme", "Agent", "agent-1"]
        platform.objects["acme", "Agent", "agent-1"] = {**stored, "spec": {"instructions": "Obey me."}}
        serving(platform, "agent-2", status="False")
        serving(platform, "agent-3", revision=2)
        wiped = {"status": {"conditions": None, "revision": None}}  # by somebody: that is no reason for anything until then
        await cluster.ask("PATCH", f"{paths[4]}/status", value=wiped)
        platform.refusals["agent-5"] = ("range", "made up")
        agent(cluster, "acme", "agent-5", description="refused")
        await core.settle()
        platform.refusals.clear()
        watched.clear()
        cluster.writes.clear()
        await resync(core)
        differs = {Key("Agent", "acme", f"agent-{number}") for number in range(6)}
        assert watched.keys.keys() == {TENANT, *differs}
        assert watched.requests["GET /v1/objects"] == 4
        assert not [each for each in watched.requests if each.startswith("GET /v1/objects/")]
        assert [cluster.condition(path)[0] for path in paths[:6]] == ["True", "True", "False", "True", "True", "True"]
        assert [cluster.status(path)["revision"]["serving"] for path in paths[2:5]] == [1, 2, 1]
        assert platform.objects["acme", "Agent", "agent-1"]["spec"]["instructions"] == "Answer."
        written = {path.removesuffix("/status") for _, path in cluster.writes if "/agents/" in path}
        assert written == set(paths[2:6])  # of what has drifted in the control plane the status was right all the time
        watched.clear()
        await resync(core)
        assert watched.keys.keys() == {TENANT}


async def made(*, meets: bool) -> tuple[Counter[str], Counter[Key]]:
    """What it costs that 400 agents come; `meets`: there is a resync when half of them are brought."""
    cluster, platform = servers()
    async with Core(cluster, platform) as core:
        tenant(cluster, "acme")
        provider(cluster, "acme")
        await core.settle()
        watched = Watched(cluster, platform, core)
        resyncs = list[asyncio.Task[None]]()

        def half(when: str, method: str, path: str) -> None:
            if meets and not resyncs and sum(key[1] == "Agent" for key in platform.objects) >= 200:
                resyncs.append(asyncio.create_task(resync(core)))

        platform.faults.append(half)
        for number in range(400):
            serving(platform, f"agent-{number}")
            agent(cluster, "acme", f"agent-{number}")
        await core.settle()
        await asyncio.gather(*resyncs)
        assert len(resyncs) == meets
        assert {cluster.condition(at("Agent", f"agent-{number}", "acme")) for number in range(400)} == {("True", "Serving")}
        return watched.requests, watched.keys


async def test_a_resync_in_the_middle_of_many_new_agents_adds_a_constant() -> None:
    (alone, keys), (met, more) = await made(meets=False), await made(meets=True)
    assert alone["GET /v1/objects"] == 0  # nothing that grows with what is there already
    assert keys.keys() == {Key("Agent", "acme", f"agent-{number}") for number in range(400)}
    assert met["GET /v1/objects"] == 4
    assert more[TENANT] == 1
    assert more.total() - keys.total() < 10
    assert sum(met.values()) - sum(alone.values()) < 40


async def test_many_are_asked_for_at_no_more_than_a_share_of_a_page_each() -> None:
    cluster, platform = servers()
    for number in range(1000):
        platform.objects["acme", "Agent", f"agent-{number}"] = {}
        platform.owners["acme", "Agent", f"agent-{number}"] = "this-cluster"
    platform.tenants["acme"] = "active"
    async with Core(cluster, platform) as core:
        watched = Watched(cluster, platform, core)

        async def look(count: int) -> tuple[int, int]:
            watched.clear()
            found = await asyncio.gather(*(core.platform.look("acme", "Agent", f"agent-{number}") for number in range(count)))
            assert [each.name for each in found if each is not None] == [f"agent-{number}" for number in range(count)]
            lists = watched.requests["GET /v1/objects"]
            return lists, watched.requests.total() - lists

        assert await look(10) == (1, 0)  # how long the list is, is not known yet
        assert await look(10) == (0, 10)
        assert await look(18) == (0, 18)
        assert await look(19) == (1, 0)  # by its six pages


@pytest.mark.parametrize("what", ["spec", "deletion"])
async def test_a_change_that_an_answer_to_ones_own_write_has_told_before_its_event_is_not_lost(what: str) -> None:
    cluster, platform = servers()
    async with Core(cluster, platform) as core:
        tenant(cluster, "acme")
        provider(cluster, "acme")
        await core.settle()
        changed = list[str]()

        def change(when: str, method: str, path: str) -> None:
            if when == "before" and path.split("?")[0].endswith("/agents/one/status") and not changed:
                changed.append(path)
                (agent(cluster, "acme", "one", description="late") if what == "spec" else cluster.remove(at("Agent", "one", "acme")))

        cluster.faults.append(change)
        agent(cluster, "acme", "one")
        await core.settle()
        assert len(changed) == 1
        stored = platform.objects.get(("acme", "Agent", "one"))
        assert (stored["spec"]["description"] if stored is not None else "gone") == ("late" if what == "spec" else "gone")


async def test_a_deletion_that_was_seen_and_not_heard_of_is_done_by_the_resync() -> None:
    cluster, platform = servers()
    async with Core(cluster, platform) as core:
        tenant(cluster, "acme")
        paths = [provider(cluster, "acme"), agent(cluster, "acme", "one"), agent(cluster, "acme", "two")]
        await core.settle()
        cluster.listeners.clear()
        for path in paths[1:]:
            cluster.remove(path)
        core.index.put(found_of("Agent", cluster.objects[paths[1]]))  # of the other one not even that
        await core.settle()
        assert paths[1] in cluster.objects
        await resync(core)
        assert [path in cluster.objects for path in paths] == [True, False, False]
        assert [key[1:] for key in platform.objects if key[1] == "Agent"] == []
