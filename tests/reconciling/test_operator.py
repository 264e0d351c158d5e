"""The operator as a process: under exactly the shipped ClusterRole, between a real API server and a real control plane."""

import re
import signal
import time

import pytest

from hansa_operator.metrics import METRICS
from kubernetes.cluster import unique
from reconciling.rig import ADMISSION, Rig, place, until

pytestmark = pytest.mark.timeout(120, func_only=True)


def replaced(rig: Rig) -> None:
    """End all operators, and have a new one lead."""
    for each in rig.operators:
        each.stop()
    rig.start().wait_for("leading")


def test_apply_wait_change_delete_and_nothing_is_left(rig: Rig) -> None:
    name = rig.tenant(deletionPolicy="Delete", displayName="The shop")
    one = rig.agent(name)
    rig.comes(one, "False", "ReferenceNotFound")
    models = rig.provider(name)
    rig.comes(one, "True")
    said = rig.cluster.kubectl("get", "hansa", "-n", name)
    assert "one" in said
    assert "models" in said
    rig.cluster.kubectl("wait", "agent/one", "-n", name, "--for=condition=Ready", "--timeout=10s")
    assert rig.stored(name, "Agent", "one")["manifest"]["spec"]["instructions"] == "Answer."
    # No annotation of anybody's, no field of a spec that the operator manages.
    found = rig.get(one)
    assert "annotations" not in found["metadata"]
    ours = [each for each in found["metadata"]["managedFields"] if each["manager"] == "hansa-operator"]
    assert all("f:spec" not in each["fieldsV1"] for each in ours)
    rig.agent(name, description="changed")
    rig.comes(one, "True")
    assert rig.stored(name, "Agent", "one")["manifest"]["spec"]["description"] == "changed"
    tenant = place("Tenant", name)
    for path in (one, models, tenant):
        rig.delete(path)
    for path in (one, models, tenant):
        rig.goes(path)
    until(lambda: rig.platform.get(f"/v1/tenants/{name}").status_code == 404)
    assert rig.get(f"/api/v1/namespaces/{name}")["status"]["phase"] == "Terminating"


def writes(rig: Rig, what: str) -> int:
    """How many of a kind the newest operator has made."""
    found = re.search(rf'^hansa_operator_writes_total{{what="{what}"}} (\d+)', rig.page("/metrics")[1], re.MULTILINE)
    return int(found[1]) if found is not None else 0


def held(rig: Rig, path: str) -> bool:
    return "hansa.dev/operator" in rig.get(path)["metadata"].get("finalizers", ())


def test_objects_are_held_from_the_start_where_the_api_server_sees_to_it(rig: Rig) -> None:
    name, spec = rig.tenant(deletionPolicy="Delete"), {"instructions": "Answer.", "model": {"alias": "small"}}
    rig.cluster.kubectl("apply", "-f", str(ADMISSION))
    try:
        probe = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "probe"}, "spec": spec}
        tried = place("Agent", "", "default").rstrip("/") + "?dryRun=All"
        # While the definitions are new it answers 503.
        until(lambda: "hansa.dev/operator" in rig.admin.post(tried, json=probe).text, 75)
        before = writes(rig, "finalizer")
        one, models = rig.agent(name), rig.provider(name)
        both = rig.put("Agent", "both", {"instructions": "Answer.", "model": {"alias": "small"}}, name, finalizers=["example.org/mine"])
        alone = rig.put(
            "Agent",
            "alone",
            {"instructions": "Answer.", "model": {"alias": "small"}},
            name,
            annotations={"hansa.dev/reconcile": "disabled"},
        )
        nobodys = rig.agent("default", unique("nobodys"))
        for path in (one, models, both):
            rig.comes(path, "True")
        rig.agent(name, description="applied again, without the finalizer, by whoever made it")
        rig.comes(one, "True")
        assert held(rig, one)
        assert rig.get(both)["metadata"]["finalizers"] == ["example.org/mine", "hansa.dev/operator"]
        rig.comes(nobodys, "False", "NamespaceUnclaimed")
        assert (held(rig, nobodys), held(rig, alone)) == (True, False)
        assert writes(rig, "finalizer") == before
    finally:
        rig.cluster.kubectl("delete", "-f", str(ADMISSION))
    rig.patch(both, {"metadata": {"finalizers": ["hansa.dev/operator"]}})
    for path in (one, models, both, alone, nobodys):
        rig.delete(path)
    for path in (one, models, both, alone, nobodys):
        rig.goes(path)
    assert not rig.stored(name, "Agent", "one")


def test_it_says_how_it_is_and_that_watches_bring_what_changes(rig: Rig) -> None:
    name = rig.tenant()
    rig.provider(name)
    rig.comes(rig.agent(name), "True")
    assert rig.page("/livez") == (200, '{"ok":true,"reasons":[]}')
    assert rig.page("/readyz") == (200, '{"ok":true,"reasons":[]}')
    status, metrics = rig.page("/metrics")
    assert status == 200
    assert "hansa_operator_leader 1.0" in metrics
    # All kinds by watches, and not by the looks that stand in for them.
    for kind in ("Agent", "ModelProvider", "Namespace", "Tenant"):
        found = re.search(rf'^hansa_operator_watch_events_total{{kind="{kind}"}} (\S+)$', metrics, re.MULTILINE)
        assert found is not None, metrics
        assert float(found[1]) > 0
    named = {each for each in re.findall(r"^# TYPE (\S+)", metrics, re.MULTILINE) if not each.endswith("_created")}
    assert named == METRICS.keys()
    assert not any(each.says("has failed") for each in rig.operators)


def test_what_a_tenant_has_in_its_namespace_and_who_else_may_write_it(rig: Rig) -> None:
    name = rig.tenant()
    wall = f"/apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies/hansa"
    bound = f"/api/v1/namespaces/{name}/limitranges/hansa"
    assert rig.get(f"/api/v1/namespaces/{name}")["metadata"]["labels"]["hansa.dev/tenant"] == name
    assert rig.get(f"/api/v1/namespaces/{name}/resourcequotas/hansa")["spec"]["hard"]["services.nodeports"] == "0"
    wanted = [
        {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": f"hansa:{of}:{name}:edit"} for of in ("tenant", "namespace")
    ]
    assert rig.get(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{name}/rolebindings/hansa-edit")["subjects"] == wanted
    # What another manager changes of ours is set right, what it adds stays.
    rig.cluster.kubectl("edit", "networkpolicy", "hansa", "-n", name, env={"KUBE_EDITOR": "sed -i s/Ingress/Egress/"})
    rig.patch(bound, {"metadata": {"labels": {"theirs": "yes"}}})
    rig.patch(place("Tenant", name), {"metadata": {"annotations": {"hansa.dev/requestedAt": "now"}}})
    until(lambda: rig.get(wall)["spec"]["policyTypes"] == ["Ingress"], what="the wall is as it was")
    until(lambda: rig.get(place("Tenant", name))["status"].get("lastHandledReconcileAt") == "now", what="echo")
    assert rig.get(bound)["metadata"]["labels"]["theirs"] == "yes"
    until(lambda: "DriftCorrected" in rig.events("default", name), what="Event")


def test_a_namespace_that_is_claimed_twice_and_a_tenant_under_another_name(rig: Rig) -> None:
    first = rig.tenant(deletionPolicy="Delete")
    rig.provider(first)
    rig.comes(rig.agent(first), "True")
    second = rig.put("Tenant", f"{first}-new", {"namespaces": [first], "deletionPolicy": "Delete"})
    rig.comes(second, "False", "NamespaceTaken")
    # Renamed: the old one goes, and what stands in its namespace is the new one's. Its namespace was not made for the new one, and stays.
    rig.patch(f"/api/v1/namespaces/{first}", {"metadata": {"annotations": {"hansa.dev/made-for": None}}})
    rig.delete(place("Tenant", first))
    rig.goes(place("Tenant", first))
    rig.comes(second, "True", "NamespacesMade", type_="NamespacesReady")
    until(lambda: bool(rig.stored(f"{first}-new", "Agent", "one")), what="the agent of the new tenant")
    until(lambda: rig.get(place("Agent", "one", first))["status"].get("tenant") == f"{first}-new", what="status.tenant")


def test_an_agent_is_that_of_its_namespaces_tenant(rig: Rig) -> None:
    here, there = rig.tenant(), rig.tenant()
    rig.provider(here)
    rig.comes(rig.agent(here, "mine", placement={"pool": there}), "True")
    assert rig.stored(here, "Agent", "mine")
    assert not rig.stored(there, "Agent", "mine")
    lost = rig.agent("default", f"{here}-lost")
    rig.comes(lost, "False", "NamespaceUnclaimed")
    rig.delete(lost)
    rig.goes(lost)


def test_who_manages_an_object_elsewhere_is_named(rig: Rig) -> None:
    name = rig.tenant()
    rig.provider(name)
    spec = {"instructions": "From Git.", "model": {"alias": "small"}}
    manifest = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "one", "namespace": name}, "spec": spec}
    until(lambda: bool(rig.stored(name, "ModelProvider", "models")))
    body = {"manager": "git", "origin": "https://git.example.org/r//agents", "commit": "abc", "objects": [{"manifest": manifest}]}
    assert rig.platform.post("/v1/objects:apply", json=body).json()["failed"] == 0
    path = rig.agent(name)
    rig.comes(path, "False", "Conflict")
    ready = next(each for each in rig.get(path)["status"]["conditions"] if each["type"] == "Ready")
    assert "git.example.org" in ready["message"]
    assert rig.condition(path, "Stalled")[0] == "True"
    rig.delete(path)
    rig.goes(path)
    assert rig.stored(name, "Agent", "one")["manifest"]["spec"]["instructions"] == "From Git."


def test_a_tenant_that_is_not_to_be_deleted_goes_when_that_is_taken_back(rig: Rig) -> None:
    name = rig.tenant(preventDeletion=True, deletionPolicy="Delete")
    path = place("Tenant", name)
    rig.delete(path)
    until(lambda: rig.condition(path) == ("False", "DeletionRefused"))
    rig.patch(path, {"spec": {"preventDeletion": False}})
    rig.goes(path)
    until(lambda: rig.platform.get(f"/v1/tenants/{name}").status_code == 404)


def test_a_way_out_of_a_finalizer_that_is_stuck(rig: Rig) -> None:
    name = rig.tenant()
    models = rig.provider(name)
    one = rig.agent(name)
    rig.comes(one, "True")
    rig.delete(models)  # an agent still uses it
    until(lambda: rig.condition(models) == ("False", "DeletionRefused"), what=lambda: str(rig.get(models)))
    rig.patch(models, {"metadata": {"annotations": {"hansa.dev/finalizer": "release"}}})
    rig.goes(models)
    assert rig.stored(name, "ModelProvider", "models")
    # And without it: it goes by itself when nothing uses it any more.
    models = rig.provider(name, "others", models=[{"name": "tiny", "aliases": ["other"]}])
    two = rig.agent(name, "two", model={"alias": "other"})
    rig.comes(two, "True")
    rig.delete(models)
    until(lambda: rig.condition(models) == ("False", "DeletionRefused"))
    rig.delete(two)
    rig.goes(two)
    rig.goes(models)


def test_killed_while_it_works_it_converges_and_leaves_no_orphan(rig: Rig) -> None:
    name = rig.tenant()
    rig.provider(name)
    count = 24
    paths = [rig.agent(name, f"agent-{number}") for number in range(count)]
    # Each request is slow, so that it is killed within one of them; four times, each time by then somewhere else.
    rig.kube.delay = lambda method, path: 0.05 if method == "PATCH" else 0.0
    try:
        for number in range(4):
            time.sleep(0.15 * (number + 1))
            rig.operators[-1].kill()
            rig.start()
            for each in range(number, count, 4):
                if each % 2:
                    rig.delete(paths[each])
            time.sleep(1.2)
    finally:
        rig.kube.delay = lambda method, path: 0.0
    for number, path in enumerate(paths):
        if number % 2:
            rig.goes(path)
        else:
            rig.comes(path, "True")
    stored = rig.platform.get("/v1/objects", params={"kind": "Agent", "limit": "200"}, headers={"hansa-tenant": name}).json()["data"]
    assert sorted(each["name"] for each in stored) == sorted(f"agent-{number}" for number in range(0, count, 2))


def test_of_two_one_leads_and_the_other_takes_over(rig: Rig) -> None:
    replaced(rig)
    first = rig.operators[-1]
    second = rig.start()
    second.wait_for("listens on")
    time.sleep(1)
    assert not second.says("is the leader")
    before = rig.leader()
    first.signal(signal.SIGSTOP)  # silent, and not gone
    started = time.monotonic()
    second.wait_for("leading", 15)
    assert time.monotonic() - started < 3 + 0.5 + 4  # a lease, a look, and a start
    assert rig.leader() != before
    # Awake again, the first learns that it leads no longer; whatever both did meanwhile is idempotent.
    name = rig.tenant()
    rig.provider(name)
    first.signal(signal.SIGCONT)
    path = rig.agent(name)
    rig.comes(path, "True")
    until(lambda: first.says("is the leader no longer"), what="the first one stands down")
    # On SIGTERM it gives the Lease back: the other one leads at its next look.
    started = time.monotonic()
    assert second.terminate() == 0
    until(lambda: first.log.read_text().count("leading, with") == 2, 6, what="the first one leads again")
    rig.agent(name, description="again")
    rig.comes(path, "True")


def test_a_new_process_writes_nothing_where_nothing_has_changed(rig: Rig) -> None:
    name = rig.tenant()
    rig.provider(name)
    paths = [rig.agent(name, f"agent-{number}") for number in range(6)]
    for path in paths:
        rig.comes(path, "True")
    for each in rig.operators:
        each.stop()
    rig.agent(name, "agent-2", description="changed while nobody looked")
    before = {path: rig.get(path)["metadata"]["resourceVersion"] for path in paths}
    rig.kube.requests.clear()
    rig.start().wait_for("leading")
    rig.comes(paths[2], "True")
    time.sleep(1)
    after = {path: rig.get(path)["metadata"]["resourceVersion"] for path in paths}
    assert [path for path in paths if before[path] != after[path]] == [paths[2]]
    writes = [path for method, path in rig.kube.requests if method != "GET" and "/leases" not in path and name in path]
    assert writes == [f"{paths[2]}/status?fieldManager=hansa-operator"]


def test_what_the_shipped_role_does_not_give_is_not_needed(rig: Rig) -> None:
    """Everything above was done under it; and it gives no more than that."""
    for verb, what in (("get", "secrets"), ("create", "agents"), ("delete", "agents"), ("create", "pods"), ("update", "clusterroles")):
        assert "no" in rig.cluster.kubectl("auth", "can-i", verb, what, "-A", user="operator", status=None).split()
    name = rig.tenant()
    assert "yes" in rig.cluster.kubectl("auth", "can-i", "get", "secrets", "-n", name, user="operator", status=None).split()
    said = rig.cluster.kubectl(
        "create", "rolebinding", "more", "--clusterrole=cluster-admin", "--user=x", "-n", name, user="operator", status=1
    )
    assert "forbidden" in said.lower()
