"""What a pass would do: the same reading and the same decisions, and a control plane that is only asked."""

from collections.abc import Sequence

import msgspec

from hansa.apply.manifests import Manifest
from hansa.apply.model import Applied
from hansa.apply.repository.model import Source, Unreadable
from hansa.apply.sync import contents, deletion
from hansa.apply.sync.contents import Contents
from hansa.apply.sync.model import CHANGING, Item, Name, Planner
from hansa.errors import FieldError

MOST_CARRIED = 200
LAST = "Agent"
"""The kind that nothing else refers to; an agent that calls another may call one that is still to come."""


class Reading(msgspec.Struct, frozen=True):
    """All that a source says: its commit, what each file says, and the objects that can be applied, in order."""

    commit: str
    contents: dict[str, Contents]
    items: tuple[Item, ...]

    @property
    def errors(self) -> tuple[FieldError, ...]:
        """Everything that is wrong with it, by file and line."""
        found = [error for each in self.contents.values() for error in each.errors]
        found += [error for each in self.contents.values() for entry in each.entries for error in entry.errors]
        found += contents.twins(contents.places(self.contents))
        return tuple(sorted(found, key=lambda error: (error.file or "", error.line or 0, error.column or 0)))


class Planned(msgspec.Struct, frozen=True):
    """A plan. `errors`: what is wrong with files; `refusal`: why what it deletes needs a yes, empty if it does not."""

    origin: str
    commit: str
    outcomes: tuple[Applied, ...]
    errors: tuple[FieldError, ...] = ()
    waiting: tuple[str, ...] = ()
    refusal: str = ""

    @property
    def changes(self) -> list[Applied]:
        """What would be done."""
        return [outcome for outcome in self.outcomes if outcome.action in CHANGING]

    @property
    def failed(self) -> bool:
        """Whether some of it would not be done."""
        return bool(self.errors or self.waiting) or any(outcome.action == "failed" for outcome in self.outcomes)


async def read_all(source: Source) -> Reading:
    """Read all of a source. Raises `RepositoryAway`, `RepositoryRefused`."""
    tree = await source.tree(await source.look())
    found: dict[str, Contents] = {}
    manifests: list[Manifest] = []
    for path, file in tree.files.items():
        try:
            found[path], read = contents.understand(path, file, await source.read(path, file))
            manifests += read
        except Unreadable as error:
            found[path] = contents.unreadable(path, file, str(error))
    places = contents.places(found)
    items = [contents.item(manifest) for manifest in manifests]
    good = [item for item in items if len(places[item.name]) == 1 and not places[item.name][0][1].errors]
    return Reading(tree.commit, found, tuple(contents.in_order(good)))


async def plan(source: Source, planner: Planner) -> Planned:
    """Ask what a pass would do. Raises what source and control plane raise."""
    reading = await read_all(source)
    outcomes: list[Applied] = []
    carried: list[Item] = []
    for batch in contents.batches(reading.items):
        # Nothing of a plan stays, so what an earlier request would have made is sent again with those that refer to it.
        answered = (await planner.plan(reading.commit, [*carried, *batch], ()))[len(carried) :]
        outcomes += [_placed(outcome, item) for outcome, item in zip(answered, batch, strict=True)]
        new = [item for outcome, item in zip(answered, batch, strict=True) if outcome.action in CHANGING and item.name.kind != LAST]
        carried = [*carried, *new][:MOST_CARRIED]
    unsure = {(outcome.kind, outcome.name) for outcome in outcomes if outcome.action == "failed" and not deletion.is_in_the_way(outcome)}
    said = contents.places(reading.contents)
    unsure |= {(name.kind, name.name) for name, where in said.items() if len(where) > 1 or where[0][1].errors}
    decision = deletion.decide(await planner.owned(), reading.contents, set(said), unsure)
    outcomes += await _deleted(planner, reading.commit, contents.against_order(decision.gone))
    waiting = decision.waiting if said else (contents.SILENCE,)
    return Planned(source.origin, reading.commit, tuple(outcomes), reading.errors, waiting, decision.refusal)


async def _deleted(planner: Planner, commit: str, gone: Sequence[Name]) -> list[Applied]:
    return await planner.plan(commit, (), gone) if gone else []


def _placed(outcome: Applied, item: Item) -> Applied:
    return msgspec.structs.replace(outcome, errors=tuple(contents.placed(error, item) for error in outcome.errors))
