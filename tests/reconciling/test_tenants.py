"""What the operator's core makes of Tenants and of their namespaces, over servers in memory."""

import pytest

from hansa_operator.model import Key
from reconciling.leader import Core, agent, at, provider, servers, tenant, until


async def test_a_namespace_that_is_claimed_twice_stays_with_the_first() -> None:
    cluster, platform = servers()
    async with Core(cluster, platform) as core:
        tenant(cluster, "first", namespaces=["shop"])
        await core.settle()
        second = tenant(cluster, "second", namespaces=["shop", "other"])
        await core.settle()
        assert cluster.condition(second) == ("False", "NamespaceTaken")
        assert "the Tenant first claimed the namespace shop" in cluster.status(second)["conditions"][0]["message"]
        provider(cluster, "shop")
        agent(cluster, "shop", "one")
        await core.settle()
        assert ("first", "Agent", "one") in platform.objects
        # By its label it stays with the first, also when an older Tenant claims it later, and for a process that has seen nothing.
        cluster.objects[second]["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    async with Core(cluster, platform) as core:
        await core.settle()
        assert cluster.condition(second) == ("False", "NamespaceTaken")
        cluster.remove(at("Tenant", "first"))
        await core.settle()
        assert cluster.condition(second) == ("True", "Ready")
        assert ("second", "Agent", "one") in platform.objects


async def test_an_agent_is_that_of_its_namespaces_tenant_whatever_it_says_and_moves_with_it() -> None:
    cluster, platform = servers()
    async with Core(cluster, platform) as core:
        tenant(cluster, "acme", namespaces=["shop"])
        tenant(cluster, "rival")
        provider(cluster, "shop")
        path = agent(cluster, "shop", "one", tenant="rival")
        await core.settle()
        assert {key[0] for key in platform.objects if key[1] == "Agent"} == {"acme"}
        tenant(cluster, "acme", namespaces=["left"])
        await core.settle()
        assert cluster.condition(path) == ("False", "NamespaceUnclaimed")
        tenant(cluster, "rival", namespaces=["rival", "shop"])
        await core.settle()
        assert {key[0] for key in platform.objects if key[1] == "Agent"} == {"rival"}
        assert cluster.status(path)["tenant"] == "rival"


async def test_one_name_in_two_namespaces_of_a_tenant_is_the_firsts() -> None:
    cluster, platform = servers()
    async with Core(cluster, platform) as core:
        tenant(cluster, "acme", namespaces=["east", "west"])
        provider(cluster, "east")
        first, second = agent(cluster, "east", "one"), agent(cluster, "west", "one", description="the second")
        await core.settle()
        assert [cluster.condition(path) for path in (first, second)] == [("True", "Ready"), ("False", "NameTaken")]
        cluster.remove(first)
        await core.settle()
        assert cluster.condition(second) == ("True", "Ready")
        assert platform.objects["acme", "Agent", "one"]["spec"]["description"] == "the second"


async def test_a_tenant_says_what_the_control_plane_says_of_it_and_when_that_changes() -> None:
    cluster, platform = servers()

    def says(status: str, reason: str) -> None:
        wall = {"type": "IsolationVerified", "status": status, "reason": reason, "message": "m", "lastTransitionTime": "t"}
        whole = {"type": "Ready", "status": status, "reason": "NotReady" if status != "True" else "AllReady", "message": reason}
        platform.statuses["acme", "Tenant", "acme"] = {"conditions": [wall, whole]}

    says("Unknown", "NotProbed")
    async with Core(cluster, platform) as core:
        path = tenant(cluster, "acme")
        await until(lambda: cluster.condition(path) == ("Unknown", "NotReady"))
        assert cluster.condition(path, "IsolationVerified") == ("Unknown", "NotProbed")
        assert cluster.condition(path, "Reconciling")[0] == "True"
        says("False", "Breached")
        core.queue.add(Key("Tenant", "", "acme"))
        await until(lambda: cluster.condition(path) == ("False", "NotReady"))
        says("True", "ProbesPassed")
        core.queue.add(Key("Tenant", "", "acme"))
        await until(lambda: cluster.condition(path) == ("True", "AllReady"))
        assert cluster.condition(path, "NamespacesReady") == ("True", "NamespacesMade")


async def test_a_quota_of_agents_is_kubernetes_too_and_none_is_no_bound() -> None:
    cluster, platform = servers()
    async with Core(cluster, platform) as core:
        tenant(cluster, "few", quotas={"agents": 3})
        tenant(cluster, "many", quotas={"agents": 0})
        await core.settle()
        hard = [cluster.objects[f"/api/v1/namespaces/{name}/resourcequotas/hansa"]["spec"]["hard"] for name in ("few", "many")]
        assert [each.get("count/agents.hansa.dev") for each in hard] == ["3", None]


async def test_a_reserved_namespace_is_nobodys() -> None:
    cluster, platform = servers()
    async with Core(cluster, platform) as core:
        paths = [tenant(cluster, "greedy", namespaces=["kube-system"]), tenant(cluster, "hansa-system")]
        await core.settle()
        assert [cluster.condition(path) for path in paths] == [("False", "NamespaceReserved")] * 2
        assert platform.tenants.keys() == {"default"}


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
async def test_a_tenant_that_goes_leaves_what_its_policy_says(policy: str) -> None:
    cluster, platform = servers()
    cluster.put("/api/v1/namespaces/older", {"kind": "Namespace", "metadata": {}})
    async with Core(cluster, platform) as core:
        path = tenant(cluster, "acme", namespaces=["made", "older"], deletionPolicy=policy)
        provider(cluster, "made")
        one = agent(cluster, "made", "one")
        await core.settle()
        assert len([each for each in cluster.objects if "/namespaces/made/" in each and each.endswith(("/hansa", "/hansa-edit"))]) == 4
        cluster.remove(one)
        cluster.remove(at("ModelProvider", "models", "made"))
        cluster.remove(path)
        await core.settle()
        ours = [each for each in cluster.objects if "hansa" in each.rsplit("/", 1)[-1] or "hansa.dev" in each]
        assert ours == []
        assert ("/api/v1/namespaces/made" in cluster.objects) == (policy == "Retain")
        assert "/api/v1/namespaces/older" in cluster.objects
        assert platform.tenants.get("acme") == ("archived" if policy == "Retain" else None)


async def test_what_stands_in_an_archived_tenant_can_go_and_can_come_to_another() -> None:
    cluster, platform = servers()
    async with Core(cluster, platform) as core:
        path = tenant(cluster, "acme", namespaces=["town"])
        provider(cluster, "town")
        going, moving = agent(cluster, "town", "going"), agent(cluster, "town", "moving")
        await core.settle()
        cluster.remove(path)
        await core.settle()
        assert platform.tenants["acme"] == "archived"
        cluster.remove(going)
        await core.settle()
        assert going not in cluster.objects
        assert cluster.events()[-1] == ("going", "LeftInTenant")
        tenant(cluster, "acme-new", namespaces=["town"])
        await core.settle()
        assert (cluster.condition(moving), cluster.status(moving)["tenant"]) == (("True", "Ready"), "acme-new")
        assert {("acme", "Agent", "going"), ("acme-new", "Agent", "moving")} <= platform.objects.keys()


async def test_a_tenant_with_workers_of_its_own_has_a_copy_of_the_shared_ones() -> None:
    cluster, platform = servers()
    shared = "/apis/apps/v1/namespaces/hansa-system/deployments/hansa-worker"
    container = {"name": "worker", "image": "hansa:1", "env": [{"name": "HANSA_WORKER_POOLS", "value": "default"}]}
    template = {"metadata": {"labels": {"app": "worker", "hansa.dev/pool": "default"}}, "spec": {"containers": [container]}}
    cluster.put(shared, {"kind": "Deployment", "spec": {"replicas": 7, "template": template}})
    own = "/apis/apps/v1/namespaces/hansa-system/deployments/hansa-worker-acme"
    async with Core(cluster, platform, shared="hansa-worker") as core:
        path = tenant(cluster, "acme", isolation={"workers": "Dedicated"})
        await core.settle()
        spec = cluster.objects[own]["spec"]
        assert spec["selector"] == {"matchLabels": {"hansa.dev/worker-tenant": "acme"}}
        assert spec["template"]["metadata"]["labels"] == {"app": "worker", "hansa.dev/worker-tenant": "acme"}
        assert {"name": "HANSA_WORKER_TENANT", "value": "acme"} in spec["template"]["spec"]["containers"][0]["env"]
        assert "replicas" not in spec
        tenant(cluster, "acme", isolation={"workers": "Shared"})
        await core.settle()
        assert own not in cluster.objects
        assert cluster.condition(path) == ("True", "Ready")
