"""Lists that narrow what goes out while something is done: what a tenant allows, what an agent allows its tools.

A list goes with the task that does the work and all tasks it begins, so that it holds whichever client is asked, a provider's as well
as a tool's. Warning: it only narrows. What the policy of the door refuses stays refused, whatever a list says.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec

from hansa.egress.judge import Target, is_covered, origin_of
from hansa.egress.policy import AllowEntry, parse_entry
from hansa.egress.refusal import EgressRefused, Rule

_SHOWN = 10


class Listed(msgspec.Struct, frozen=True):
    """A list, and whose it is, for people."""

    whose: str
    texts: tuple[str, ...]
    entries: tuple[AllowEntry, ...]


_IN_FORCE: ContextVar[list[Listed]] = ContextVar("egress lists in force")
"""The lists of the block around, one object for all tasks within: what one of them narrows holds for the others too."""


@contextmanager
def narrowed(whose: str, entries: Sequence[str] | None) -> Generator[None]:
    """Let requests made within go only where `entries` say; None: no narrower than before. Raises `Misconfigured`."""
    if entries is None:
        yield
        return
    with narrowing_within():
        narrow(whose, entries)
        yield


@contextmanager
def narrowing_within() -> Generator[None]:
    """Let what is narrowed within by `narrow` hold to the end of this block."""
    token = _IN_FORCE.set([*_in_force()])
    try:
        yield
    finally:
        _IN_FORCE.reset(token)


def narrow(whose: str, entries: Sequence[str]) -> None:
    """Let requests made from here on go only where `entries` say, to the end of the `narrowing_within` around, in whichever task within it.
    Raises `Misconfigured`, and `LookupError` where nothing is around.
    """
    _IN_FORCE.get().append(Listed(whose, tuple(entries), tuple(map(parse_entry, entries))))


@contextmanager
def of_the_platform() -> Generator[None]:
    """Let requests made within go wherever the door's policy lets them: what the platform itself needs is on no tenant's list."""
    token = _IN_FORCE.set([])
    try:
        yield
    finally:
        _IN_FORCE.reset(token)


def judge_lists(target: Target) -> None:
    """Refuse a target that a list in force does not name. Raises `EgressRefused`."""
    for listed in _in_force():
        if not any(is_covered(target, entry) for entry in listed.entries):
            shown = ", ".join(listed.texts[:_SHOWN])
            more = f" and {len(listed.texts) - _SHOWN} more" if len(listed.texts) > _SHOWN else ""
            raise EgressRefused(
                origin_of(target), Rule.NOT_LISTED, f"it is not on {listed.whose}", hint=f"Listed are: {shown or 'none'}{more}."
            )


def _in_force() -> Sequence[Listed]:
    return _IN_FORCE.get(())
