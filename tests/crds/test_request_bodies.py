"""Other data than objects is judged with the same words."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from hansa_crds import problems


class Window(Struct, forbid_unknown_fields=True, rename="camel"):
    """A request body with a rule of its own."""

    starts_at: Annotated[datetime, Meta(tz=True)]
    ends_at: Annotated[datetime, Meta(tz=True)]

    def __post_init__(self) -> None:
        if self.ends_at < self.starts_at:
            raise ValueError("the window ends before it starts")


class Booking(Struct, forbid_unknown_fields=True):
    """A request body."""

    window: Window
    seats: Annotated[int, Meta(ge=1)] = 1


def test_a_request_body_is_judged_with_the_same_care() -> None:
    bad = problems({"window": {"startsAt": "2030-01-31T12:00:00", "ends_at": "x"}, "seat": 2}, Booking)
    assert [(each.path, each.code) for each in bad] == [
        ("seat", "unknown_field"),
        ("window.ends_at", "unknown_field"),
        ("window.startsAt", "type"),
    ]
    assert [each.suggestion for each in bad[:2]] == ["did you mean `seats`?", "did you mean `endsAt`?"]


def test_a_rule_inside_a_request_body_is_told_with_its_place() -> None:
    window = {"startsAt": "2030-01-31T12:00:00Z", "endsAt": "2029-01-31T12:00:00Z"}
    bad = problems({"window": window}, Booking)
    assert [(each.path, each.message) for each in bad] == [("window", "the window ends before it starts")]
    assert problems({"window": {**window, "endsAt": "2031-01-31T12:00:00Z"}}, Booking) == ()
