"""One validator everywhere: the library, the REST API, the command line and Kubernetes' API server say the same of every object.

What they are asked stands in `conformance.yaml`; where the API server can't say the same, that is pinned there with its reason.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx2
import msgspec
import pytest
import yaml

from cli.command import hansa
from hansa_crds import KINDS, Problem, check
from hansa_crds.definitions import definition
from hansa_crds.expressions import expressions
from hansa_crds.parts import PATTERN_WORDS
from hansa_crds.rules import RULES
from kubernetes.cluster import Cluster, unique
from kubernetes.conformance import Case, Mutation, Object, cases, differences, fields, mutations, objects
from stack import Process, Stack

CASES = cases()
REFUSED = [each for each in CASES if not each.accepted]
UNSTORABLE = "what can be stored"
UNSTORED = [each for each in REFUSED if each.because == UNSTORABLE]


class Verdict(msgspec.Struct, frozen=True):
    """What the API server says of an object: nothing, or each thing that is wrong."""

    status: int
    causes: tuple[tuple[str, str], ...] = ()
    message: str = ""

    @property
    def accepted(self) -> bool:
        return self.status < 300


class Judge:
    """The API server, asked without anything being written."""

    def __init__(self, client: httpx2.Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    def create(self, found: Object) -> Verdict:
        answer = self._client.post(f"{self._place(found)}?dryRun=All&fieldValidation=Strict", json=found)
        if answer.is_success:
            return Verdict(answer.status_code)
        body: dict[str, Any] = answer.json()
        causes: list[dict[str, str]] = body.get("details", {}).get("causes") or []
        return Verdict(answer.status_code, tuple((each.get("field", ""), each["message"]) for each in causes), body["message"])

    def _place(self, found: Object) -> str:
        kind = KINDS.get(found["kind"]) or KINDS["Agent"]
        inside = f"namespaces/{self._namespace}/" if kind.scope == "Namespaced" else ""
        return f"/apis/hansa.dev/v1alpha1/{inside}{kind.plural}"


@pytest.fixture
def judge(cluster: Cluster, namespace: str) -> Iterator[Judge]:
    with cluster.client() as client:
        yield Judge(client, namespace)


def told(found: Object) -> tuple[Problem, ...]:
    return check(found)[1]


def test_the_objects_are_right_and_have_every_field(judge: Judge) -> None:
    missing = {kind: {path for path in fields(each.type) if path.startswith("spec.")} for kind, each in KINDS.items()}
    for name, found in objects().items():
        assert told(found) == (), name
        assert judge.create(found).accepted, (name, judge.create(found))
        missing[found["kind"]] -= set(_written(found["spec"], "spec"))
    assert missing == {kind: set() for kind in KINDS}


@pytest.mark.parametrize("case", CASES, ids=[each.name for each in CASES])
def test_the_library_says_what_the_file_says(case: Case) -> None:
    problems = told(case.object)
    if case.accepted:
        assert problems == ()
    else:
        assert any(case.path in each.path or (each.code == "duplicate" and each.path.startswith(case.path)) for each in problems), problems


def test_the_api_server_says_the_same(judge: Judge) -> None:
    wrong: list[Any] = []
    for case in CASES:
        verdict = judge.create(case.object)
        wanted = case.accepted or case.kubernetes == "accepted"
        if verdict.accepted != wanted:
            wrong.append((case.name, verdict))
        elif case.says and not any(case.says in message for _, message in verdict.causes):
            wrong.append((case.name, case.says, verdict.causes))
        elif not wanted and case.path.startswith("spec") and not (_near(verdict, case.path) or case.path in verdict.message):
            wrong.append((case.name, case.path, verdict))
    assert wrong == []


def test_every_difference_has_a_case_and_a_reason() -> None:
    assert {each.because for each in CASES if each.kubernetes} == differences().keys()
    assert all(bool(each.kubernetes) == bool(each.because) for each in CASES)


def test_every_value_is_judged_alike_whatever_stands_in_its_place(judge: Judge) -> None:
    wrong: list[Any] = []
    counts = {True: 0, False: 0}
    for each in mutations():
        problems, verdict = told(each.object), judge.create(each.object)
        counts[verdict.accepted] += 1
        if (not problems) != verdict.accepted and not _pinned(each, problems, verdict):
            wrong.append((each.kind, each.keys, str(each.value)[:60], [p.message for p in problems], verdict))
    assert wrong == []
    assert min(counts.values()) > 200, counts


async def test_the_rest_api_says_the_same(api: httpx2.AsyncClient) -> None:
    refused = [each for each in REFUSED if each.because != UNSTORABLE]
    answer = await api.post("/v1/objects:apply", json={"objects": [{"manifest": each.object} for each in refused]})
    assert answer.json()["failed"] == len(refused)
    for case, result in zip(refused, answer.json()["results"], strict=True):
        errors = [(each["path"], each["code"], each["message"]) for each in result["errors"]]
        assert errors == [(each.path, each.code, each.message) for each in told(case.object)], case.name


@pytest.mark.parametrize("case", UNSTORED, ids=[each.name for each in UNSTORED])
async def test_the_rest_api_refuses_what_cannot_be_stored_as_it_comes_in(api: httpx2.AsyncClient, case: Case) -> None:
    answer = await api.post("/v1/objects:apply", json={"objects": [{"manifest": case.object}]})
    assert answer.status_code in (400, 422) or answer.json()["failed"] == 1, answer.text


async def test_the_rest_api_refuses_what_may_not_change(api: httpx2.AsyncClient) -> None:
    """As the API server does by `self == oldSelf`; that is in `test_definitions.py`."""
    name = unique("issuer")
    issuer = {"name": "corp", "issuer": "https://login.example.org", "audience": name}
    found: Object = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": {}}
    found["spec"] = {"identity": {"issuers": [issuer]}, "deletionPolicy": "Delete"}
    made = (await api.post("/v1/objects:apply", json={"objects": [{"manifest": found}]})).json()
    assert made["failed"] == 0, made
    issuer["issuer"] = "https://elsewhere.example.org"
    (refused,) = (await api.post("/v1/objects:apply", json={"objects": [{"manifest": found}]})).json()["results"]
    assert [(each["path"], each["code"]) for each in refused["errors"]] == [("spec.identity.issuers[0].issuer", "immutable")]
    assert "give another issuer another name" in refused["errors"][0]["suggestion"]
    issuer["name"] = "elsewhere"
    changed = (await api.post("/v1/objects:apply", json={"objects": [{"manifest": found}]})).json()
    assert changed["failed"] == 0, changed
    assert (await api.delete(f"/v1/tenants/{name}", params={"confirm": name})).is_success


def test_the_command_line_says_the_same_with_the_place(stack: Stack, control_plane: Process, tmp_path: Path) -> None:
    chosen = [each for each in REFUSED if each.because != UNSTORABLE]  # YAML itself can't hold those
    for number, case in enumerate(chosen):
        found = case.object
        if "metadata.name" not in case.set:
            found["metadata"]["name"] = f"c{number}"
        (tmp_path / f"{number:03}.yaml").write_text(yaml.safe_dump(found))
    ended = hansa("apply", ".", "-o", "json", cwd=tmp_path, HANSA_URL=control_plane.url, HANSA_API_KEY=stack.key)
    applied = msgspec.json.decode(ended.out)
    failed = {error["file"]: each for each in applied["results"] for error in each["errors"]}
    assert ended.status == 1
    for number, case in enumerate(chosen):
        errors = failed[f"{number:03}.yaml"]["errors"]
        assert [(each["path"], each["message"]) for each in errors] == [(each.path, each.message) for each in told(case.object)], case.name
        assert all(each["line"] > 0 for each in errors)


def test_every_rule_has_a_case_that_breaks_it() -> None:
    said = [each.says for each in REFUSED if each.says]
    for rules in RULES.values():
        for rule in rules:
            for expression in expressions(rule):
                if "oldSelf" not in expression.rule:
                    assert any(words.split(":")[0] in expression.message for words in said), expression


def test_every_pattern_is_broken_by_a_value() -> None:
    asked = [*(each.object for each in mutations()), *(each.object for each in REFUSED)]
    broken = {each.message for found in asked for each in told(found) if each.code == "pattern"}
    assert {words for words in PATTERN_WORDS.values() if not any(words in message for message in broken)} == set()


def test_a_rule_that_the_api_server_does_not_have_is_noticed(cluster: Cluster) -> None:
    """The control: with the rules taken out of the definitions, every object that breaks one is let in."""
    broken = [each for each in REFUSED if each.says]
    admitted: dict[str, bool] = {}
    with cluster.client() as client:
        for kind in sorted({each.object["kind"] for each in broken}):
            poorer = definition(KINDS[kind])
            plural, group = KINDS[kind].plural, "without-rules.test"
            _strip(poorer)
            poorer["metadata"]["name"] = f"{plural}.{group}"
            poorer["spec"] |= {"group": group, "names": {**poorer["spec"]["names"], "shortNames": [], "categories": []}}
            place = cluster.install(client, yaml.safe_dump(poorer))
            inside = "namespaces/default/" if KINDS[kind].scope == "Namespaced" else ""
            for each in broken:
                if each.object["kind"] == kind:
                    found = {**each.object, "apiVersion": f"{group}/v1alpha1"}
                    answer = client.post(f"/apis/{group}/v1alpha1/{inside}{plural}?dryRun=All&fieldValidation=Strict", json=found)
                    admitted[each.name] = answer.is_success
            client.delete(place)
    assert len(admitted) == len({each.name for each in broken}) > 20
    assert [name for name, let_in in admitted.items() if not let_in] == []


def _strip(part: Any) -> None:
    """Take every rule out of a definition."""
    if isinstance(part, dict):
        known = cast("dict[str, Any]", part)
        known.pop("x-kubernetes-validations", None)
        for each in known.values():
            _strip(each)
    elif isinstance(part, list):
        for each in cast("list[Any]", part):
            _strip(each)


def _pinned(mutation: Mutation, problems: tuple[Problem, ...], verdict: Verdict) -> bool:
    """Whether judges may differ here: only by null, which Kubernetes takes out of an object before it judges."""
    return verdict.accepted and mutation.value is None and all(each.code == "type" and "null" in each.message for each in problems)


def _near(verdict: Verdict, path: str) -> bool:
    """Whether one of the places that the API server names is the one that is meant, or one within the other."""
    named = [field.replace('"', "").replace("'", "") for field, _ in verdict.causes]
    return any(each.startswith(path) or path.startswith(each) for each in named if each)


def _written(part: Any, path: str) -> Iterator[str]:
    """Every field that is in an object, as a path without positions."""
    if isinstance(part, dict):
        for name, each in cast("dict[str, Any]", part).items():
            yield f"{path}.{name}"
            yield from _written(each, f"{path}.{name}")
    elif isinstance(part, list):
        for each in cast("list[Any]", part):
            yield from _written(each, path)
