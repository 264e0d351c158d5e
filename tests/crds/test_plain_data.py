"""Data that no JSON could say, that is too deep, too large or runs in a circle: a problem, never an exception."""

from datetime import UTC, date, datetime
from typing import Any, cast

import pytest
import yaml

from crds import objects
from crds.answers import only, read, told
from hansa_crds import check
from hansa_crds.problem import MAX_PROBLEMS
from hansa_crds.soundness import MAX_DEPTH, MAX_VALUES


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), 10**400, -(2**63) - 1, 2**63, 10**6000], ids=type)
@pytest.mark.parametrize("place", ["output", "temperature"])
def test_a_number_that_json_or_the_store_cannot_hold_is_refused(number: float, place: str) -> None:
    if place == "output":
        bad = only(objects.agent(examples=[{"input": "a", "output": {"n": [number]}}]))
        assert bad.path == "spec.examples[0].output.n[0]"
    else:
        bad = only(objects.agent(model={"alias": "a", "params": {"temperature": number}}))
        assert bad.path == "spec.model.params.temperature"
    assert bad.code == "range"


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "x\udfff"])
def test_text_that_cannot_be_stored_is_refused_wherever_it_stands(text: str) -> None:
    assert (only(objects.agent(instructions=text)).path, only(objects.agent(instructions=text)).code) == ("spec.instructions", "pattern")
    for data in (objects.agent(**{text: 1}), objects.agent(runtime={"config": {text: 1}})):
        bad = only(data)
        assert bad.code == "pattern"
        assert bad.path.isprintable()
        assert bad.path.encode()


@pytest.mark.parametrize("key", [1, None, True, 1.5, date(2030, 1, 31), (1, 2)])
def test_a_key_that_is_no_string_is_refused_and_the_rest_is_judged_too(key: Any) -> None:
    data = objects.agent(suspend="no")
    cast("dict[Any, Any]", data["spec"])[key] = 1
    bad = told(data)
    assert {path: each.code for path, each in bad.items()} == {"spec": "type", "spec.suspend": "type"}


@pytest.mark.parametrize("value", [date(2030, 1, 31), datetime(2030, 1, 31, tzinfo=UTC), b"x", {1, 2}, object()])
def test_what_json_cannot_say_is_refused_in_free_places_too(value: Any) -> None:
    bad = only(objects.agent(runtime={"config": {"a": [value]}}))
    assert (bad.path, bad.code) == ("spec.runtime.config.a[0]", "type")


def test_an_alias_that_points_back_at_itself_is_refused() -> None:
    assert "contains itself" in only(yaml.safe_load("kind: Agent\nspec: &a\n  config: {again: *a}")).message
    assert "contains itself" in only(yaml.safe_load("&a [*a]")).message


def test_aliases_that_multiply_are_refused_before_they_cost_anything() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 40))]
    bad = only(yaml.safe_load("\n".join(lines)))
    assert bad.code == "length"
    assert str(MAX_VALUES) in bad.message


def test_an_alias_used_twice_is_fine() -> None:
    text = "{input: a, output: &o {s: 1}}, {input: b, output: *o}"
    examples = yaml.safe_load(f"[{text}]")
    assert read(objects.agent(examples=examples))


@pytest.mark.parametrize("many", [100, 100_000])
def test_nesting_too_deep_is_refused(many: int) -> None:
    data: Any = "x"
    for _ in range(many):
        data = [data]
    bad = only(objects.agent(examples=[{"input": "a", "output": data}]))
    assert bad.code == "length"
    assert str(MAX_DEPTH) in bad.message


def test_nesting_up_to_the_limit_is_fine() -> None:
    data: Any = "x"
    for _ in range(MAX_DEPTH - len(("spec", "examples", 0, "output"))):
        data = [data]
    assert read(objects.agent(examples=[{"input": "a", "output": data}]))
    assert only(objects.agent(examples=[{"input": "a", "output": [data]}])).code == "length"


def test_no_more_problems_are_told_than_anyone_reads() -> None:
    for data in (
        objects.agent(**{f"x{n}": 1 for n in range(50_000)}),
        objects.agent(examples=[{"input": n, "output": float("nan")} for n in range(5_000)]),
        objects.model_provider(models=[{"name": "a"}] * 5_000),
    ):
        _, bad = check(data)
        assert len(bad) == MAX_PROBLEMS + 1
        assert str(MAX_PROBLEMS) in bad[-1].message


def test_a_message_is_short_and_printable_whatever_the_name() -> None:
    bad = only(objects.agent(**{"\x1b[31m" + "é" * 10_000: 1}))
    assert bad.code == "unknown_field"
    assert (bad.path + bad.message).isprintable()
    assert len(bad.path + bad.message) < 500
