"""What the operator's core makes of objects, over servers in memory."""

import base64

from hansa_operator.model import FINALIZER
from reconciling.leader import Core, agent, at, provider, servers, tenant, until


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
