"""What is generated from the types: the same as a fresh run, and it says what validation says."""

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any, cast

import jsonschema_rs
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct, inspect

from crds import objects
from hansa_crds import KINDS, check
from hansa_crds.emitter import emit
from hansa_crds.generate import differing, files, main
from hansa_crds.rules import RULES

ROOT = Path(__file__).resolve().parents[2]
Schema = dict[str, Any]

WORDS = st.text(st.characters(min_codepoint=0, max_codepoint=0xFFFD, exclude_categories=["Cs"]), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS
LEAVES = SCALARS | st.sampled_from(
    ["yes", "NO", "null", ".5", ".inf", "1e3", "0x1", "~", "<<", "a b", "a: b", "a #b", "- a", "", " a", "=", "a -"]
)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=10)


generated = cache(files)


@cache
def crd(kind: str) -> Schema:
    return yaml.safe_load(generated()[f"crds/yaml/hansa.dev_{KINDS[kind].plural}.yaml"])


def version(kind: str) -> Schema:
    return crd(kind)["spec"]["versions"][0]


def schema(kind: str) -> Schema:
    return version(kind)["schema"]["openAPIV3Schema"]


def every(part: Any) -> list[Schema]:
    """All schemas within a structural schema."""
    inner = list(part.get("properties", {}).values())
    inner += [part[key] for key in ("items", "additionalProperties") if key in part]
    return [part, *(found for each in inner for found in every(each))]


def test_generated_files_are_as_a_fresh_run_makes_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--root", str(ROOT)]) == 0, capsys.readouterr().out


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "crds").mkdir()
    shutil.copy(ROOT / "crds" / "pyproject.toml", tmp_path / "crds")
    return tmp_path


def test_a_file_that_differs_is_named_and_mended(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(copy)]) == 0
    assert {path.relative_to(copy).as_posix() for path in copy.rglob("*.*") if path.is_file()} == {*files(), "crds/pyproject.toml"}
    changed, gone = copy / "docs/reference/agent.md", copy / "crds/yaml/hansa.dev_agents.yaml"
    changed.write_text(changed.read_text() + "\n")
    gone.unlink()
    capsys.readouterr()
    assert main(["--check", "--root", str(copy)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "crds/yaml/hansa.dev_agents.yaml: missing; run `make generate`",
        "docs/reference/agent.md: differs; run `make generate`",
    ]
    assert main(["--root", str(copy)]) == 0
    assert differing(copy) == {}


def test_a_file_of_a_kind_that_is_no_more_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--root", str(copy)])
    (copy / "crds/yaml/hansa.dev_ships.yaml").write_text("")
    assert main(["--check", "--root", str(copy)]) == 1
    assert "hansa.dev_ships.yaml: not a generated file" in capsys.readouterr().out
    assert main(["--root", str(copy)]) == 1


def test_generating_elsewhere_than_in_the_repository_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path)]) == 2
    assert "crds/pyproject.toml" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@given(st.dictionaries(WORDS, TREES, min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_what_the_emitter_writes_a_yaml_reader_reads_back(data: dict[str, Any]) -> None:
    assert yaml.safe_load(emit(data)) == data


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_of_a_reference_page_is_right(kind: str) -> None:
    text = generated()[f"docs/reference/{KINDS[kind].singular}.md"]
    examples = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert examples
    for example in examples:
        found, bad = check(yaml.safe_load(example))
        assert bad == ()
        assert type(found) is KINDS[kind].type


@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_page_describes_every_field(kind: str) -> None:
    rows = [line.split(" | ") for line in generated()[f"docs/reference/{KINDS[kind].singular}.md"].splitlines() if line.startswith("| `")]
    described = {row[0].removeprefix("| `").removesuffix("`"): row[-1].removesuffix(" |") for row in rows}
    spec = schema(kind)["properties"]["spec"]

    def paths(part: Schema, path: str) -> list[str]:
        below = [(f"{path}.{name}", each) for name, each in part.get("properties", {}).items() if not path.lower().endswith("schema")]
        return [path, *(found for name, each in below for found in paths(each.get("items", each), name + "[]" * ("items" in each)))]

    expected = {path.removesuffix("[]") for path in paths(spec, "spec")}
    assert expected <= set(described)
    assert all(text.strip() for text in described.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_definition_names_its_kind_as_the_registry_does(kind: str) -> None:
    made = crd(kind)
    assert (made["kind"], made["metadata"]["name"]) == ("CustomResourceDefinition", f"{KINDS[kind].plural}.hansa.dev")
    names = made["spec"]["names"]
    assert (names["kind"], names["categories"], names["shortNames"]) == (kind, ["hansa"], list(KINDS[kind].short_names))
    assert made["spec"]["scope"] == ("Cluster" if kind in {"Tenant", "Region"} else "Namespaced")
    assert [each["name"] for each in version(kind)["additionalPrinterColumns"]][::100] == ["Ready"]


def test_short_names_are_nobody_elses() -> None:
    assert {kind: each.short_names for kind, each in KINDS.items()} == {
        "Agent": ("hag",),
        "Tenant": ("hten",),
        "Region": ("hreg",),
        "ModelProvider": ("hmp",),
        "ToolServer": ("hts",),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_object_is_not_taken_for_ready_before_it_was_judged(kind: str) -> None:
    status = schema(kind)["properties"]["status"]
    assert status["default"] == {"observedGeneration": -1}
    assert status["properties"]["conditions"]["x-kubernetes-list-map-keys"] == ["type"]
    assert version(kind)["subresources"] == {"status": {}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_structural_and_bounded(kind: str) -> None:
    free = "x-kubernetes-preserve-unknown-fields"
    for part in every(schema(kind)):
        assert not {"$ref", "oneOf", "anyOf", "allOf", "additionalItems"} & set(part)
        assert "type" in part or part.get(free) is True
        if part.get("type") == "array":
            assert part["maxItems"] <= 256
            assert part["x-kubernetes-list-type"] in {"atomic", "set", "map"}
        if "x-kubernetes-list-map-keys" in part:
            assert set(part["x-kubernetes-list-map-keys"]) <= set(part["items"]["required"])
        if "additionalProperties" in part:
            assert part["maxProperties"] <= 256
        for rule in part.get("x-kubernetes-validations", []):
            assert rule["message"]


def test_defaults_of_the_definition_are_those_of_the_types() -> None:
    spec = schema("Agent")["properties"]["spec"]["properties"]
    limits = {name: each["default"] for name, each in spec["limits"]["properties"].items()}
    assert limits == {
        "turns": 16,
        "tokens": 0,
        "cost": 0.0,
        "timeoutSeconds": 600,
        "approvalSeconds": 86400,
        "concurrentRuns": 0,
    }
    assert (spec["limits"]["default"], spec["runtime"]["default"], spec["suspend"]["default"]) == ({}, {}, False)
    assert spec["runtime"]["properties"]["name"]["default"] == "loop"


def test_free_objects_keep_what_is_in_them() -> None:
    spec = schema("Agent")["properties"]["spec"]["properties"]
    for part in (spec["outputSchema"], spec["runtime"]["properties"]["config"], spec["examples"]["items"]["properties"]["output"]):
        assert part["x-kubernetes-preserve-unknown-fields"] is True


def test_rules_of_choice_are_told_to_kubernetes_with_what_to_do() -> None:
    spec = schema("Agent")["properties"]["spec"]["properties"]
    for part in (spec["model"], spec["model"]["properties"]["fallbacks"]["items"], spec["tools"]["items"]):
        rule, *_ = part["x-kubernetes-validations"]
        assert rule["rule"].endswith("== 1")
        assert "must be set: " in rule["message"]
    assert schema("ModelProvider")["properties"]["spec"]["properties"]["models"]["x-kubernetes-list-map-keys"] == ["name"]


def test_every_rule_names_fields_that_exist() -> None:
    for type_, rules in RULES.items():
        fields = {each.encode_name for each in cast("inspect.StructType", inspect.type_info(type_)).fields}
        for rule in rules:
            names = getattr(rule, "fields", ()) or (getattr(rule, "field", None) or "metadata",)
            assert set(names) <= fields, (type_, rule)
            assert issubclass(type_, Struct)


@pytest.mark.parametrize("make", objects.ALL)
@pytest.mark.parametrize("file", ["hansa", "its own"])
def test_the_schema_for_editors_accepts_what_validation_accepts(make: Any, file: str) -> None:
    data = make()
    name = KINDS[data["kind"]].singular if file == "its own" else file
    text = json.loads(generated()[f"crds/schema/{name}.schema.json"])
    jsonschema_rs.meta.validate(text)
    assert text["$schema"].endswith("2020-12/schema")
    judge = jsonschema_rs.validator_for(text)
    assert [str(each) for each in judge.iter_errors(data)] == []
    assert not judge.is_valid({**data, "sepc": 1})
    assert not judge.is_valid({**data, "kind": "Ship"})


WRONG: tuple[dict[str, Any], ...] = (
    {"modle": 1},
    {"limits": {"turns": 0}},
    {"suspend": "no"},
    {"instructions": ""},
    {"outputSchema": {}},
    {"outputSchema": {"type": "objekt"}},
    {"model": {}},
    {"model": {"alias": "a", "ref": "a/b"}},
    {"model": {"alias": None}},
    {"tools": [{}]},
    {"tools": [{"plugin": "a", "allow": ["x", "x"]}]},
    {"inputTemplate": "none"},
)


@pytest.mark.parametrize("spec", WRONG)
def test_the_schema_for_editors_refuses_what_validation_refuses(spec: dict[str, Any]) -> None:
    data = objects.agent(**spec)
    judge = jsonschema_rs.validator_for(json.loads(generated()["crds/schema/agent.schema.json"]))
    assert check(data)[0] is None
    assert not judge.is_valid(data)
