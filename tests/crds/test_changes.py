"""What may not change from one version of an object to the next."""

import copy
from typing import Any

import pytest

from crds import objects
from hansa_crds import changes, check

ISSUERS = [
    {"name": "corp", "issuer": "https://login.example.org", "audience": "hansa"},
    {"name": "guests", "issuer": "https://guests.example.org", "audience": "hansa"},
]


def tenant(*issuers: dict[str, Any]) -> dict[str, Any]:
    found = objects.tenant(identity={"issuers": list(copy.deepcopy(issuers))})
    assert check(found)[1] == ()
    return found


def test_an_issuer_stays_what_its_name_stands_for_wherever_it_stands() -> None:
    moved = tenant(ISSUERS[1], {**ISSUERS[0], "issuer": "https://elsewhere.example.org"})
    (bad,) = changes(tenant(*ISSUERS), moved)
    assert (bad.path, bad.code) == ("spec.identity.issuers[1].issuer", "immutable")
    assert "give another issuer another name" in bad.suggestion


@pytest.mark.parametrize(
    "after",
    [
        tenant(*ISSUERS),
        tenant(ISSUERS[1], ISSUERS[0]),
        tenant(ISSUERS[1]),
        tenant(),
        tenant({**ISSUERS[0], "audience": "other"}),
        tenant({**ISSUERS[0], "name": "elsewhere", "issuer": "https://elsewhere.example.org"}),
        objects.tenant(),
        objects.tenant(weight=3),
    ],
)
def test_what_else_changes_is_no_matter(after: dict[str, Any]) -> None:
    assert changes(tenant(*ISSUERS), after) == ()
    assert changes(objects.tenant(), after) == ()


@pytest.mark.parametrize("make", objects.ALL)
def test_kinds_without_such_a_rule_may_change_as_they_like(make: Any) -> None:
    assert changes(make(), {**make(), "spec": {}}) == ()
