"""Whatever the data: no exception, and a problem exactly when msgspec or a rule refuses it."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, TypedDict, cast
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct, inspect

from crds import objects
from hansa_crds import API_VERSION, KINDS, check, problems
from hansa_crds.rules import broken, rules_of
from hansa_crds.walk import Walk

NAMES = (
    "apiVersion kind metadata spec name namespace model alias ref tools plugin toolServer allow env limits turns type object read x"
    " a/b {input} aliases models endpoint http://x effects labels params temperature fallbacks outputSchema suspend"
)
WORDS = [*NAMES.split(), "", API_VERSION, *KINDS]
TEXT = st.one_of(st.sampled_from(WORDS), st.text(st.characters(codec="utf-8", exclude_characters="\n\x00"), max_size=8))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.integers(-3, 300), st.floats(allow_nan=False, allow_infinity=False), TEXT
)
JSON = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)), max_leaves=12)


def places(data: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield here
    pairs: list[tuple[Any, Any]] = []
    if isinstance(data, dict):
        pairs = list(cast("dict[str, Any]", data).items())
    elif isinstance(data, list):
        pairs = list(enumerate(cast("list[Any]", data)))
    for key, each in pairs:
        yield from places(each, (*here, key))


@st.composite
def nearly_right(draw: st.DrawFn) -> Any:
    """A right object, changed in a few places: a value replaced, a field removed, added or named otherwise."""
    data = draw(st.sampled_from(objects.ALL))()
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.sampled_from(list(places(data))))
        parent = data
        for key in place[:-1]:
            parent = parent[key]
        change = draw(st.sampled_from(["replace", "remove", "add", "rename"]))
        if not place:
            continue
        target: Any = parent[place[-1]]
        if change == "replace":
            parent[place[-1]] = draw(JSON)
        elif change == "add" and isinstance(target, dict):
            target[draw(TEXT)] = draw(JSON)
        elif change == "add" and isinstance(target, list):
            items = cast("list[Any]", target)
            items.append(draw(st.sampled_from(items)) if items and draw(st.booleans()) else draw(JSON))
        elif change == "rename" and isinstance(parent, dict):
            fields = cast("dict[str, Any]", parent)
            fields[draw(TEXT)] = fields.pop(place[-1])
        elif change == "remove":
            del parent[place[-1]]
    return data


def obeys_rules(found: Any) -> bool:
    """Judge an object by its rules, from the Structs and not from the data."""
    if isinstance(found, Struct):
        data = msgspec.to_builtins(found)
        if any(True for rule in rules_of(type(found)) for _ in broken(rule, data, ())):
            return False
        return all(obeys_rules(getattr(found, each)) for each in found.__struct_fields__)
    return all(obeys_rules(each) for each in cast("tuple[Any, ...]", found)) if isinstance(found, tuple) else True


def right(data: Any) -> bool:
    kind = cast("dict[str, Any]", data).get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        return False
    try:
        return obeys_rules(msgspec.convert(data, KINDS[kind].type, strict=True))
    except msgspec.ValidationError:
        return False


@given(JSON | nearly_right())
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_object_has_problems_exactly_when_its_type_or_a_rule_refuses_it(data: Any) -> None:
    found, bad = check(data)
    assert (found is None) == bool(bad)
    assert (not bad) == right(data), bad
    if found is not None:
        assert found == msgspec.convert(data, KINDS[data["kind"]].type, strict=True)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 3


class Inner(Struct, forbid_unknown_fields=True, rename="camel"):
    max_size: Annotated[int, Meta(gt=0, le=10, multiple_of=2)]
    x: str | None = None


class Cat(Struct, tag_field="type", tag="cat", forbid_unknown_fields=True):
    name: str


class Dog(Struct, tag_field="type", tag="dog", forbid_unknown_fields=True):
    name: int = 0


class Size(TypedDict):
    x: int


class Sample(Struct, forbid_unknown_fields=True):
    """Something of everything that a request body may be made of."""

    model: Inner | None = None
    name: Annotated[str, Meta(min_length=1, max_length=3, pattern="^[a-z]*$")] | int = 1
    type: Literal["object", "read", 3, None] = None
    read: Colour | Level = Level.LOW
    x: list[Inner] | dict[str, int] | str = ""
    ref: tuple[int, str] | None = None
    tools: Annotated[list[str], Meta(min_length=1, max_length=2)] | None = None
    allow: frozenset[str | int] | None = None
    aliases: set[Any] | None = None
    plugin: Cat | Dog | None = None
    spec: Any = None
    limits: Size | None = None
    turns: Annotated[float, Meta(ge=-1, lt=100)] | bool = 0.0
    alias: UUID | int | None = None
    kind: datetime | float | None = None
    env: date | None = None
    instructions: timedelta | None = None
    models: Decimal | list[bool] | None = None
    metadata: dict[Annotated[str, Meta(max_length=4)], Annotated[int, Meta(ge=0)]] | None = None
    endpoint: bytes | None = None


SAMPLE = inspect.type_info(Sample)
SPECIAL = st.sampled_from(
    ["2030-01-31T12:00:00Z", "2030-01-31", "PT30S", "0190b1a0-0000-7000-8000-000000000000", "1.5", "YQ==", "red", "abc", 1, 2, 3, 4, 1.0]
)
VALUES = SPECIAL | JSON
TAGGED = st.fixed_dictionaries({}, optional={"type": st.sampled_from(["cat", "dog", "cow", 1]), "name": VALUES, "x": VALUES})
SIZED = st.fixed_dictionaries({}, optional={"maxSize": st.integers(-2, 12), "max_size": VALUES, "x": VALUES})
SAMPLES = st.dictionaries(
    st.sampled_from(Sample.__struct_fields__), VALUES | TAGGED | SIZED | st.lists(VALUES | SIZED, max_size=3), max_size=4
)


@given(JSON | SAMPLES)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_request_body_has_problems_exactly_when_msgspec_refuses_it(data: Any) -> None:
    walk = Walk()
    walk.value(data, SAMPLE)
    refusal = ""
    try:
        msgspec.convert(data, Sample, strict=True)
    except (msgspec.ValidationError, TypeError) as error:
        refusal = str(error)
    assert bool(walk.found) == bool(refusal), f"not foreseen: {refusal}"
    assert bool(problems(data, Sample)) == bool(refusal)


@pytest.mark.parametrize("make", objects.ALL)
def test_an_object_that_uses_every_field_is_right(make: Any) -> None:
    found, bad = check(make())
    assert bad == ()
    assert found is not None
    assert msgspec.to_builtins(found)["spec"] != {}
