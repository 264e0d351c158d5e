"""What is deleted: objects that this source owns and no longer says. Pure, and the one place where it is decided.

Owned is what the control plane says, asked after everything else was applied; said is what all files say now. Where a file can't be
understood, nothing follows from its silence: what stood in it stays, and what it may still name.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import msgspec

from hansa.apply.model import Applied
from hansa.apply.sync.contents import Contents
from hansa.apply.sync.model import Name, Owned

FEW = 10
SHARE = 0.3
NEVER = ("Tenant", "Region")
"""Kinds with much behind them: none of them is deleted without a yes."""


class Decision(msgspec.Struct, frozen=True):
    """`gone`: to be deleted. `waiting`: not now, with the reason. `refusal`: why all of `gone` needs an explicit yes, if it does."""

    gone: tuple[Name, ...] = ()
    waiting: tuple[str, ...] = ()
    refusal: str = ""


def is_in_the_way(outcome: Applied) -> bool:
    """Whether an object is refused because the same one still stands in another namespace of its tenant: there it may be deleted."""
    return all(error.code == "conflict" and error.path == "metadata.namespace" for error in outcome.errors)


def decide(
    owned: Sequence[Owned], all_contents: Mapping[str, Contents], said: Collection[Name], unsure: Collection[tuple[str, str]]
) -> Decision:
    """Decide. `unsure`: kind and name of objects that could not be applied, perhaps only because their namespace changed."""
    if not any(each.entries for each in all_contents.values() if not each.broken):
        # A repository that is empty, or can't be understood at all, says nothing, and silence deletes nothing.
        return Decision()
    broken = {path: contents for path, contents in all_contents.items() if contents.broken}
    gone: list[Name] = []
    waiting: list[str] = []
    for each in owned:
        if each.name in said:
            continue
        holder = next((path for path, contents in broken.items() if _may_hold(path, contents, each)), None)
        if holder is not None:
            waiting.append(f"{each.name} is kept while {holder} {broken[holder].why}")
        elif (each.name.kind, each.name.name) in unsure:
            waiting.append(f"{each.name} is kept while an object of its name can't be applied")
        else:
            gone.append(each.name)
    return Decision(tuple(gone), tuple(waiting), too_much(gone, owned))


def _may_hold(path: str, contents: Contents, owned: Owned) -> bool:
    """Whether an object may still be said by a broken file, or by what is in the place of its folder."""
    return path == owned.file or owned.file.startswith(f"{path}/") or owned.name.name in contents.words


def too_much(gone: Sequence[Name], owned: Sequence[Owned]) -> str:
    """Why so many deletions need a yes; empty: they don't."""
    for name in gone:
        if name.kind in NEVER:
            return f"the {name.kind} {name.name} would be deleted"
    all_of = Counter(each.name.kind for each in owned)
    for kind, count in Counter(name.kind for name in gone).items():
        if count > max(FEW, SHARE * all_of[kind]):
            return f"{count} of {all_of[kind]} objects of kind {kind} would be deleted, more than {FEW} and than {SHARE:.0%}"
    return ""
