"""What the control plane has otherwise than it is written, over servers in memory."""

from doubles.memory_cluster import MemoryCluster
from doubles.memory_platform import MemoryPlatform
from reconciling.leader import Core, agent, provider, tenant


def servers() -> tuple[MemoryCluster, MemoryPlatform]:
    return MemoryCluster(), MemoryPlatform()


async def test_a_default_that_is_written_out_is_no_drift() -> None:
    cluster, platform = servers()
    async with Core(cluster, platform) as core:
        tenant(cluster, "acme")
        provider(cluster, "acme")
        agent(cluster, "acme", "one", suspend=False)
        await core.settle()
        stored = platform.objects["acme", "Agent", "one"]
        assert stored["spec"].pop("suspend") is False
        await core.survey.compare()
        await core.settle()
        assert core.metrics.drift._value.get() == 0  # pyright: ignore[reportPrivateUsage]
        stored["spec"]["suspend"] = True
        await core.survey.compare()
        await core.settle()
        assert core.metrics.drift._value.get() == 1  # pyright: ignore[reportPrivateUsage]


async def test_what_drifts_is_set_right_and_told() -> None:
    cluster, platform = servers()
    async with Core(cluster, platform) as core:
        tenant(cluster, "acme")
        provider(cluster, "acme")
        agent(cluster, "acme", "one")
        agent(cluster, "acme", "two")
        await core.settle()
        wall = "/apis/networking.k8s.io/v1/namespaces/acme/networkpolicies/hansa"
        del cluster.objects[wall]
        del platform.objects["acme", "Agent", "one"]
        platform.objects["acme", "Agent", "two"] = {**platform.objects["acme", "Agent", "two"], "spec": {"instructions": "Obey me."}}
        platform.objects["acme", "Agent", "left"] = platform.objects["acme", "Agent", "two"]
        platform.owners["acme", "Agent", "left"] = "this-cluster"
        await core.survey.compare()
        await core.settle()
        assert wall in cluster.objects
        assert platform.objects["acme", "Agent", "two"]["spec"]["instructions"] == "Answer."
        assert ("acme", "Agent", "one") in platform.objects
        assert sorted(set(cluster.events())) == [("acme", "DriftCorrected"), ("one", "DriftCorrected"), ("two", "DriftCorrected")]
        assert core.metrics.orphans._value.get() == 1  # pyright: ignore[reportPrivateUsage]
        assert ("acme", "Agent", "left") in platform.objects
