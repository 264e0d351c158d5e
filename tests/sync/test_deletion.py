"""What is deleted, over thousands of made-up situations, and a guard that is shown to notice."""

import random

import pytest

from hansa.apply.sync import deletion
from hansa.apply.sync.contents import Contents, Entry
from hansa.apply.sync.deletion import decide, too_much
from hansa.apply.sync.model import Name, Owned

WORDS = [f"n{number}" for number in range(40)]
PATHS = ["a.yaml", "b.yaml", "c.yaml"]


def name(draw: random.Random) -> Name:
    return Name(draw.choice(["Agent", "ToolServer", "Tenant"]), draw.choice(["", "acme"]), draw.choice(WORDS))


def situation(draw: random.Random) -> tuple[list[Owned], dict[str, Contents], set[tuple[str, str]]]:
    """What is owned, what files say, and what could not be applied."""
    owned = [Owned(each, draw.choice(PATHS)) for each in {name(draw) for _ in range(draw.randrange(40))}]
    contents: dict[str, Contents] = {}
    for path in draw.sample(PATHS, draw.randrange(4)):
        entries = tuple(Entry(draw.choice([name(draw), *(each.name for each in owned)]), (1, 1)) for _ in range(draw.randrange(15)))
        words = frozenset(draw.sample(WORDS, draw.randrange(10)))
        contents[path] = Contents("id", entries, broken=draw.random() < 0.3, words=words)
    unsure = {(draw.choice(["Agent", "Tenant"]), draw.choice(WORDS)) for _ in range(draw.randrange(5))}
    return owned, contents, unsure


def test_nothing_is_deleted_that_is_said_or_might_be() -> None:
    deleted = 0
    for seed in range(3000):
        owned, contents, unsure = situation(random.Random(seed))
        deleted += check(decide(owned, contents, said_by(contents), unsure), owned, contents, unsure)
    assert deleted > 1000


def said_by(contents: dict[str, Contents]) -> set[Name]:
    return {entry.name for each in contents.values() for entry in each.entries}


def check(found: deletion.Decision, owned: list[Owned], contents: dict[str, Contents], unsure: set[tuple[str, str]]) -> int:
    """How many are deleted, all of them rightly."""
    said = said_by(contents)
    by_name = {each.name: each for each in owned}
    assert len(set(found.gone)) == len(found.gone)
    for name in found.gone:
        assert said
        assert name in by_name
        assert name not in said
        assert (name.kind, name.name) not in unsure
        broken = {path: each for path, each in contents.items() if each.broken}
        assert by_name[name].file not in broken
        assert not any(name.name in each.words for each in broken.values())
    if said and not any(each.broken for each in contents.values()) and not unsure:
        assert set(found.gone) == set(by_name) - said
    assert bool(found.refusal) == bool(too_much(found.gone, owned))
    return len(found.gone)


def test_the_check_notices_what_is_deleted_wrongly() -> None:
    owned = [Owned(Name("Agent", "", "n1"), "a.yaml")]
    contents = {"a.yaml": Contents("id", broken=True), "b.yaml": Contents("id", (Entry(Name("Agent", "", "n2"), (1, 1)),))}
    assert check(decide(owned, contents, said_by(contents), set()), owned, contents, set()) == 0
    with pytest.raises(AssertionError):
        check(deletion.Decision(gone=(owned[0].name,)), owned, contents, set())


def test_the_guard_counts_each_kind_and_lets_no_tenant_go() -> None:
    owned = [Owned(Name("Agent", "", f"a{number}")) for number in range(100)] + [
        Owned(Name("ToolServer", "", f"t{number}")) for number in range(12)
    ]
    agents, servers = [each.name for each in owned[:100]], [each.name for each in owned[100:]]
    assert too_much(agents[:30], owned) == ""
    assert "31 of 100 objects of kind Agent" in too_much(agents[:31], owned)
    assert too_much(agents[:30] + servers[:10], owned) == ""
    assert "11 of 12 objects of kind ToolServer" in too_much(agents[:1] + servers[:11], owned)
    for kind in deletion.NEVER:
        assert f"the {kind} x would be deleted" in too_much([Name(kind, "", "x")], owned)
