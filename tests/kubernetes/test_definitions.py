"""Hansa's definitions in a real API server: what kubectl shows, what is refused, and that nothing looks ready before it was judged."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from cli.command import hansa
from hansa_crds import KINDS
from hansa_crds.generate import definitions
from kubernetes.cluster import Cluster, unique
from kubernetes.conformance import objects

AGENT = objects()["agent"]
PLAIN = objects()["plain-agent"]
NOW = "2030-01-31T12:00:00Z"


def named(found: dict[str, Any], name: str) -> dict[str, Any]:
    """A copy of an object under another name."""
    made = copy.deepcopy(found)
    made["metadata"]["name"] = name
    return made


class Kept:
    """Agents in one namespace, written and read by kubectl or over HTTP."""

    def __init__(self, cluster: Cluster, client: httpx2.Client, namespace: str) -> None:
        self.cluster = cluster
        self.client = client
        self.namespace = namespace
        self.place = f"/apis/hansa.dev/v1alpha1/namespaces/{namespace}/agents"

    def kubectl(self, *arguments: str, stdin: str = "", status: int | None = 0) -> str:
        return self.cluster.kubectl(*arguments, f"--namespace={self.namespace}", stdin=stdin, status=status)

    def apply(self, found: dict[str, Any], *options: str, status: int | None = 0) -> str:
        return self.kubectl("apply", "--server-side", "--filename=-", *options, stdin=yaml.safe_dump(found), status=status)

    def report(self, name: str, **status: Any) -> dict[str, Any]:
        """Write a status, as an operator does."""
        answer = self.client.patch(
            f"{self.place}/{name}/status?fieldManager=hansa-operator",
            content=json.dumps({"status": status}),
            headers={"content-type": "application/merge-patch+json"},
        )
        assert answer.is_success, answer.text
        return answer.json()

    def read(self, name: str) -> dict[str, Any]:
        answer = self.client.get(f"{self.place}/{name}")
        assert answer.is_success, answer.text
        return answer.json()


@pytest.fixture
def kept(cluster: Cluster, namespace: str) -> Iterator[Kept]:
    with cluster.client() as client:
        yield Kept(cluster, client, namespace)


def condition(type_: str, status: str, reason: str) -> dict[str, Any]:
    return {"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": NOW, "observedGeneration": 1}


READY = condition("Ready", "True", "Ready")


def test_a_new_object_is_not_ready_until_it_was_judged(kept: Kept) -> None:
    kept.apply(named(PLAIN, "fresh"))
    assert kept.read("fresh")["status"] == {"observedGeneration": -1}
    waited = kept.kubectl("wait", "agent/fresh", "--for=condition=Ready", "--timeout=1s", status=1)
    assert "timed out" in waited
    assert kept.read("fresh")["metadata"]["generation"] == 1


def test_kubectl_waits_for_an_object_to_be_ready(kept: Kept) -> None:
    kept.apply(named(PLAIN, "waited"))
    kept.report("waited", observedGeneration=1, conditions=[READY])
    kept.kubectl("wait", "agent/waited", "--for=condition=Ready", "--timeout=10s")


def test_one_get_shows_all_kinds_and_their_columns(kept: Kept) -> None:
    kept.apply(named(PLAIN, "by-reference"))
    kept.apply(named(AGENT, "by-alias"))
    for each in ("provider", "server"):
        kept.apply(named(objects()[each], "one"))
    revision = {"desired": 8, "serving": 7}
    refused = condition("Ready", "False", "ReferenceNotFound")
    kept.report("by-alias", observedGeneration=1, conditions=[refused], revision=revision, tenant="wool")
    shown = kept.kubectl("get", "hansa")
    for kind, name in (("agent", "by-alias"), ("agent", "by-reference"), ("modelprovider", "one"), ("toolserver", "one")):
        assert f"{kind}.hansa.dev/{name}" in shown
    rows = [line.split() for line in kept.kubectl("get", "hag").splitlines()]
    assert rows[0] == ["NAME", "READY", "RUNTIME", "MODEL", "REVISION", "REASON", "AGE"]
    assert rows[1][:6] == ["by-alias", "False", "loop", "small", "7", "ReferenceNotFound"]
    assert rows[2][:3] == ["by-reference", "loop", "openai/some-model"]
    wide = [line.split() for line in kept.kubectl("get", "agents", "--output=wide").splitlines()]
    assert wide[0] == ["NAME", "READY", "RUNTIME", "MODEL", "REVISION", "DESIRED", "TENANT", "SUSPENDED", "REASON", "AGE"]
    assert wide[1][:9] == ["by-alias", "False", "loop", "small", "7", "8", "wool", "true", "ReferenceNotFound"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_columns_and_short_name(cluster: Cluster, kind: str) -> None:
    found = KINDS[kind]
    with cluster.client() as client:
        table = client.get(f"/apis/hansa.dev/v1alpha1/{found.plural}", headers={"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
        shown = [each["name"] for each in table.json()["columnDefinitions"]]
        assert shown == ["Name", *(each.name for each in found.columns)]
        known = {each["name"]: each for each in client.get("/apis/hansa.dev/v1alpha1").json()["resources"]}
    assert (known[found.plural]["shortNames"], known[found.plural]["categories"]) == (list(found.short_names), ["hansa"])
    assert f"{found.plural}/status" in known


def test_a_field_that_there_is_not_is_refused_however_it_comes(kept: Kept) -> None:
    wrong = named(PLAIN, "wrong")
    wrong["spec"]["modle"] = "x"
    assert ".spec.modle: field not declared in schema" in kept.apply(wrong, status=1)
    assert 'unknown field "spec.modle"' in kept.kubectl("create", "--filename=-", stdin=yaml.safe_dump(wrong), status=1)
    assert kept.client.get(kept.place).json()["items"] == []


def test_a_rule_that_is_broken_says_what_to_do(kept: Kept) -> None:
    wrong = named(AGENT, "wrong")
    wrong["spec"]["model"]["ref"] = "openai/big"
    wrong["spec"]["inputTemplate"] = "Review:"
    said = kept.apply(wrong, status=1)
    assert "spec.model: Invalid value" in said
    assert "exactly one of alias, ref must be set: name the model by alias or as ref: provider/model" in said
    assert "write {input} where the text of the user belongs" in said


def test_who_else_manages_a_field_is_named(kept: Kept) -> None:
    kept.apply(named(PLAIN, "contested"), "--field-manager=flux")
    other = named(PLAIN, "contested")
    other["spec"]["instructions"] = "Something else."
    said = kept.apply(other, "--field-manager=somebody", status=1)
    assert 'conflict with "flux"' in said
    assert ".spec.instructions" in said
    kept.apply(other, "--field-manager=somebody", "--force-conflicts")


def test_two_managers_may_each_add_a_tool_that_is_allowed(kept: Kept) -> None:
    """Names are a set: who adds one does not take the others'."""
    for manager, tool in (("one", "search"), ("two", "fetch")):
        found = {"apiVersion": AGENT["apiVersion"], "kind": "ToolServer", "metadata": {"name": "shared"}}
        found["spec"] = {"endpoint": "https://tools.example.org", "allow": [tool]}
        kept.apply(found, f"--field-manager={manager}")
    allowed = json.loads(kept.kubectl("get", "toolserver/shared", "--output=json"))["spec"]["allow"]
    assert sorted(allowed) == ["fetch", "search"]


def test_an_issuer_stays_what_its_name_stands_for(cluster: Cluster) -> None:
    tenant = named(objects()["tenant"], unique("issuer"))
    issuers = tenant["spec"]["identity"]["issuers"]
    try:
        cluster.kubectl("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump(tenant))
        issuers.reverse()
        issuers[1]["audience"] = "other"
        cluster.kubectl("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump(tenant))
        issuers[1]["issuer"] = "https://elsewhere.example.org"
        said = cluster.kubectl("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump(tenant), status=1)
        assert "issuer can't be changed: give another issuer another name, and bind roles to that" in said
        issuers[1]["name"] = "elsewhere"
        cluster.kubectl("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump(tenant))
    finally:
        cluster.kubectl("delete", f"tenant/{tenant['metadata']['name']}", "--ignore-not-found")


def test_objects_are_selected_by_their_fields(kept: Kept) -> None:
    kept.apply(named(PLAIN, "running"))
    kept.apply(named(AGENT, "held"))
    kept.report("held", tenant="wool")

    def chosen(selector: str) -> list[str]:
        listed = kept.kubectl("get", "agents", f"--field-selector={selector}", "--output=name").split()
        return [each.rpartition("/")[2] for each in listed if "/" in each]

    assert chosen("spec.suspend=true") == ["held"]
    assert chosen("spec.suspend=false") == ["running"]
    assert chosen("spec.model.alias=small") == ["held"]
    assert chosen("spec.placement.pool=default") == ["running"]
    assert chosen("status.tenant=wool") == ["held"]
    assert chosen("spec.runtime.name=loop,spec.suspend=false") == ["running"]
    assert "field label not supported" in kept.kubectl("get", "agents", "--field-selector=spec.instructions=x", status=1)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_that_may_be_selected_by_is_served(cluster: Cluster, kind: str) -> None:
    with cluster.client() as client:
        for path in KINDS[kind].selectable:
            answer = client.get(f"/apis/hansa.dev/v1alpha1/{KINDS[kind].plural}", params={"fieldSelector": f"{path[1:]}=x"})
            assert answer.status_code == 200, answer.text


def test_every_field_is_explained(cluster: Cluster) -> None:
    assert "Name of a runtime that a loaded plugin brings." in cluster.kubectl("explain", "agent.spec.runtime.name")
    assert "Exchanges shown to the model" in cluster.kubectl("explain", "hag.spec.examples")
    said = cluster.kubectl("explain", "tenant.spec", "--recursive")
    assert all(word in said for word in ("roleBindings", "warnAt", "preventDeletion"))
    assert "Generation of the object that was judged last" in cluster.kubectl("explain", "region.status.observedGeneration")


def test_a_status_is_written_apart_from_the_object(kept: Kept) -> None:
    made = named(PLAIN, "reported")
    kept.apply({**made, "status": {"observedGeneration": 5}})
    assert kept.read("reported")["status"] == {"observedGeneration": -1}
    found = kept.report("reported", observedGeneration=1, conditions=[READY], lastHandledReconcileAt=NOW)
    assert (found["metadata"]["generation"], found["status"]["lastHandledReconcileAt"]) == (1, NOW)
    assert found["status"]["conditions"][0]["observedGeneration"] == 1
    kept.apply(made)
    assert kept.read("reported")["status"]["conditions"] == [READY]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"conditions": [READY, READY]}, "Duplicate value"),
        ({"conditions": [{"type": "Ready", "status": "True"}]}, "Required value"),
        ({"conditions": [{**READY, "status": "Yes"}]}, "Unsupported value"),
        ({"conditions": [{**READY, "lastTransitionTime": "yesterday"}]}, "date-time"),
        ({"conditions": [{**READY, "type": f"C{number}"} for number in range(17)]}, "Too many"),
        ({"lastHandledReconcileAt": "x" * 254}, "Too long"),
        ({"observedGeneration": -2}, "greater than or equal to -1"),
    ],
)
def test_a_status_that_is_wrong_is_refused(kept: Kept, status: dict[str, Any], words: str) -> None:
    kept.apply(named(PLAIN, "judged"))
    body = json.dumps({"status": status})
    answer = kept.client.patch(f"{kept.place}/judged/status", content=body, headers={"content-type": "application/merge-patch+json"})
    assert answer.status_code == 422
    assert words in answer.json()["message"]


def test_an_object_that_is_too_large_is_refused(kept: Kept) -> None:
    large = named(PLAIN, "large")
    large["spec"]["runtime"] = {"config": {"text": "x" * 2_000_000}}
    answer = kept.client.post(kept.place, json=large)
    assert answer.status_code in (413, 500), answer.text
    assert "too large" in answer.text.lower()
    within = named(PLAIN, "within")
    within["spec"]["runtime"] = {"config": {"text": "x" * 1_000_000}}
    assert kept.client.post(kept.place, json=within).status_code == 201


def test_the_definitions_of_this_version_are_printed_and_written(cluster: Cluster, tmp_path: Path) -> None:
    printed = hansa("crds", cwd=tmp_path)
    assert printed.status == 0
    assert [each["metadata"]["name"] for each in yaml.safe_load_all(printed.out)] == [f"{each.plural}.hansa.dev" for each in KINDS.values()]
    applied = cluster.kubectl("apply", "--server-side", "--field-manager=tests", "--filename=-", stdin=printed.out).splitlines()
    assert applied == [
        f"customresourcedefinition.apiextensions.k8s.io/{each.plural}.hansa.dev serverside-applied" for each in KINDS.values()
    ]
    written = hansa("crds", "hag", "tenants", "--folder", "some/where", cwd=tmp_path)
    assert "kubectl apply --server-side -f some/where" in written.err
    for name in ("hansa.dev_agents.yaml", "hansa.dev_tenants.yaml"):
        assert (tmp_path / "some/where" / name).read_text() == definitions()[name]
    assert len(list((tmp_path / "some/where").iterdir())) == 2


@pytest.mark.parametrize(("kind", "words"), [("ship", "there is no kind 'ship'"), ("run", "no objects in Kubernetes")])
def test_definitions_of_what_is_no_kind_are_not_printed(tmp_path: Path, kind: str, words: str) -> None:
    ended = hansa("crds", kind, cwd=tmp_path)
    assert (ended.status, ended.out) == (2, "")
    assert words in ended.err


def test_definitions_that_cannot_be_written_say_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = hansa("crds", "--folder", "file", cwd=tmp_path)
    assert ended.status == 74
    assert "can't be written" in ended.err
