"""What the operator's core makes of objects, over servers in memory."""

import base64

import pytest

from doubles.memory_cluster import MemoryCluster
from doubles.memory_platform import MemoryPlatform
from hansa_operator.model import FINALIZER, Key
from reconciling.leader import Core, agent, at, provider, tenant, until


def servers() -> tuple[MemoryCluster, MemoryPlatform]:
    return MemoryCluster(), MemoryPlatform()


async def test_an_agent_waits_for_what_it_needs_and_goes_on_by_itself() -> None:
    cluster, platform = servers()
    async with Core(cluster, platform) as core:
        path = agent(cluster, "acme", "one")
        await core.settle()
        assert cluster.condition(path) == ("False", "NamespaceUnclaimed")
        assert cluster.condition(path, "Reconciling") == ("True", "NamespaceUnclaimed")
        assert FINALIZER not in cluster.objects[path]["metadata"].get("finalizers", ())
        tenant(cluster, "acme")
        await core.settle()
        assert cluster.condition(path) == ("False", "ReferenceNotFound")
        assert platform.objects.keys() == {("acme", "Tenant", "acme")}
        provider(cluster, "acme")
        await core.settle()
        assert cluster.condition(path) == ("True", "Ready")
        assert cluster.condition(path, "Reconciling") == ("", "")
        assert cluster.status(path)["tenant"] == "acme"
        assert ("acme", "Agent", "one") in platform.objects
        assert "annotations" not in cluster.objects[path]["metadata"]


async def test_agents_that_name_each_other_wait_for_each_other_and_no_longer() -> None:
    cluster, platform = servers()
    async with Core(cluster, platform) as core:
        tenant(cluster, "acme")
        provider(cluster, "acme")
        first = agent(cluster, "acme", "first", tools=[{"agent": "second"}])
        await core.settle()
        assert cluster.condition(first) == ("False", "ReferenceNotFound")
        second = agent(cluster, "acme", "second", tools=[{"agent": "first"}])
        await core.settle()
        assert [cluster.condition(path) for path in (first, second)] == [("True", "Ready")] * 2


async def test_what_is_written_at_once_is_brought_in_few_requests_and_in_order() -> None:
    cluster, platform = servers()
    for number in range(300):
        agent(cluster, "acme", f"agent-{number}")
    provider(cluster, "acme")
    tenant(cluster, "acme")
    async with Core(cluster, platform) as core:
        await core.settle()
        assert core.metrics.sent._value.get() == 302  # pyright: ignore[reportPrivateUsage]
        requests = [count for _, path, count in platform.requests if path == "/v1/objects:apply"]
        assert sum(requests) == 302
        assert len(requests) < 20
        # A finalizer, a status, and nothing else for each of them; no Event for what is ready from the start.
        assert sum("/agents/" in path for _, path in cluster.writes) == 600
        assert cluster.events() == []


async def test_a_new_process_writes_nothing_where_nothing_has_changed() -> None:
    cluster, platform = servers()
    tenant(cluster, "acme")
    provider(cluster, "acme")
    for number in range(5):
        agent(cluster, "acme", f"agent-{number}")
    async with Core(cluster, platform) as core:
        await core.settle()
    agent(cluster, "acme", "agent-3", description="changed while nobody looked")
    cluster.writes.clear()
    platform.requests.clear()
    async with Core(cluster, platform) as core:
        await core.settle()
        assert cluster.writes == [("PATCH", f"{at('Agent', 'agent-3', 'acme')}/status")]
        assert [count for _, path, count in platform.requests if path == "/v1/objects:apply"] == [1]
        await core.survey.compare()
        await core.settle()
        assert len(cluster.writes) == 1


async def test_a_request_to_reconcile_is_echoed_and_disabling_is_obeyed() -> None:
    cluster, platform = servers()
    async with Core(cluster, platform) as core:
        tenant(cluster, "acme")
        provider(cluster, "acme")
        path = agent(cluster, "acme", "one")
        await core.settle()
        noted = {**cluster.objects[path], "metadata": {"annotations": {"hansa.dev/requestedAt": "noon"}}}
        cluster.put(path, noted)
        await core.settle()
        assert cluster.status(path)["lastHandledReconcileAt"] == "noon"
        cluster.put(path, {**noted, "metadata": {"annotations": {"hansa.dev/reconcile": "disabled"}}, "spec": {"instructions": "Other."}})
        await core.settle()
        assert cluster.condition(path) == ("True", "Disabled")
        assert cluster.status(path)["observedGeneration"] == 1
        assert platform.objects["acme", "Agent", "one"]["spec"]["instructions"] == "Answer."


async def test_an_object_of_another_owner_says_who_that_is() -> None:
    cluster, platform = servers()
    platform.owners["acme", "Agent", "one"] = "git https://example.org/r//agents.yaml:3"
    async with Core(cluster, platform) as core:
        tenant(cluster, "acme")
        provider(cluster, "acme")
        path = agent(cluster, "acme", "one")
        await core.settle()
        assert cluster.condition(path) == ("False", "Conflict")
        assert cluster.condition(path, "Stalled") == ("True", "Conflict")
        assert "agents.yaml:3" in cluster.status(path)["conditions"][0]["message"]
        cluster.remove(path)
        await core.settle()
        assert path not in cluster.objects
        assert platform.owners["acme", "Agent", "one"].startswith("git")


async def test_what_the_control_plane_refuses_is_stalled_until_it_is_changed() -> None:
    cluster, platform = servers()
    platform.refusals["one"] = ("range", "must be at most 200")
    async with Core(cluster, platform) as core:
        tenant(cluster, "acme")
        provider(cluster, "acme")
        path = agent(cluster, "acme", "one")
        await core.settle()
        assert cluster.condition(path, "Stalled") == ("True", "Invalid")
        platform.refusals.clear()
        agent(cluster, "acme", "one", description="mended")
        await core.settle()
        assert cluster.condition(path) == ("True", "Ready")
        assert cluster.condition(path, "Stalled") == ("", "")
        assert cluster.events() == [("one", "Invalid"), ("one", "Ready")]


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


async def test_what_the_control_plane_does_not_delete_stays_and_has_a_way_out() -> None:
    cluster, platform = servers()
    platform.kept["models"] = "used"
    async with Core(cluster, platform) as core:
        tenant(cluster, "acme")
        path = provider(cluster, "acme")
        await core.settle()
        cluster.remove(path)
        await core.settle()
        assert cluster.condition(path) == ("False", "DeletionRefused")
        cluster.put(path, {**cluster.objects[path], "metadata": {"annotations": {"hansa.dev/finalizer": "release"}}})
        cluster.objects[path]["metadata"]["deletionTimestamp"] = "2026-11-30T00:01:00Z"
        core.intake.seen("ModelProvider", cluster.objects[path])
        await core.settle()
        assert path not in cluster.objects
        assert ("acme", "ModelProvider", "models") in platform.objects
        assert cluster.events()[-1] == ("models", "Released")


async def test_a_labelled_secret_is_brought_once_and_again_when_it_changes() -> None:
    cluster, platform = servers()
    secret = "/api/v1/namespaces/acme/secrets/openai"

    def write(value: str, **labels: str) -> None:
        data = {"key": base64.b64encode(value.encode()).decode()}
        cluster.put(secret, {"kind": "Secret", "metadata": {"labels": labels}, "data": data})

    write("not-for-everyone")
    async with Core(cluster, platform) as core:
        tenant(cluster, "acme")
        path = provider(cluster, "acme", credentials={"secret": "openai"})
        await core.settle()
        assert platform.secrets == {}  # whoever may name a Secret must not be able to have just any sent away
        write("first-value", **{"hansa.dev/secret": "true"})
        core.queue.wake(core.index.objects)
        await core.settle()
        assert platform.secrets == {("acme", "openai"): ["first-value"]}
        assert cluster.condition(path, "CredentialsReady") == ("True", "SecretCopied")
        write("second-value", **{"hansa.dev/secret": "true"})
        core.queue.wake(core.index.objects)
        await core.settle()
        core.queue.wake(core.index.objects)
        await core.settle()
        assert platform.secrets == {("acme", "openai"): ["first-value", "second-value"]}
        cluster.remove(path)
        await core.settle()
        assert platform.secrets == {}


async def test_a_control_plane_that_was_away_is_told_all_when_it_is_back() -> None:
    cluster, platform = servers()
    async with Core(cluster, platform) as core:
        tenant(cluster, "acme")
        provider(cluster, "acme")
        one, going = agent(cluster, "acme", "one"), agent(cluster, "acme", "going")
        await core.settle()
        platform.away = True
        cluster.remove(going)
        two = agent(cluster, "acme", "two")
        agent(cluster, "acme", "one", description="changed meanwhile")
        await until(lambda: cluster.condition(two) == ("Unknown", "ControlPlaneUnavailable"))
        assert cluster.status(one)["observedGeneration"] == 1
        await until(lambda: cluster.condition(going) == ("True", "ControlPlaneUnavailable"))
        assert "not deleted yet: " in cluster.status(going)["conditions"][0]["message"]
        before = len(cluster.writes)
        platform.away = False
        await core.settle()
        assert cluster.condition(two) == cluster.condition(one) == ("True", "Ready")
        assert going not in cluster.objects
        assert len(cluster.writes) - before < 9
        assert platform.objects["acme", "Agent", "one"]["spec"]["description"] == "changed meanwhile"


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
