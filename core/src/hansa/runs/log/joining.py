"""A run's past with the values that it refers to in their places: one more query, and only when there are any."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import msgspec

from hansa.errors import Damaged
from hansa.runs.log.keeping import Values
from hansa.runs.model import Loaded, Past, Recorded, RunView
from hansa.runs.values import Bodies, join_fields, join_whole, wanted


class DamagedPast(Damaged):
    """A value that a run's log refers to is missing or was changed; `step` says where: a step, `input`, `history` or `end`."""

    title = "The log is damaged"

    def __init__(self, step: str, damage: Damaged) -> None:
        super().__init__(f"{damage.detail} (needed at {step})", hint=damage.hint)
        self.step = step


async def join_loaded(values: Values, tenant_id: UUID, loaded: Loaded) -> Loaded:
    """A loaded run, whole; one that lacks a value says so in `damage`."""
    past = Past(loaded.history, loaded.steps)
    try:
        run, whole = await join_past(values, tenant_id, loaded.run, past)
    except DamagedPast as error:
        return msgspec.structs.replace(loaded, damage=error.detail)
    return loaded if whole is past else msgspec.structs.replace(loaded, run=run, history=whole.history, steps=whole.steps)


async def join_past(values: Values, tenant_id: UUID, run: RunView, past: Past) -> tuple[RunView, Past]:
    """A run and its past, whole: these very ones if they refer to nothing. Raises `DamagedPast`."""
    asked = wanted(_values(run, past))
    return _joined(run, past, await values.load(tenant_id, asked)) if asked else (run, past)


async def join_results(values: Values, tenant_id: UUID, found: Sequence[Recorded]) -> list[Recorded]:
    """What has come of waits, whole. Raises `DamagedPast`."""
    bodies = await values.load(tenant_id, wanted(value for event in found for value in event.data.values()))
    return [_joined_step(event, bodies) for event in found]


def _values(run: RunView, past: Past) -> Iterable[Any]:
    yield from (run.input, run.output)
    for turn in past.history:
        yield from turn
    for step in past.steps:
        yield from step.data.values()


def _joined(run: RunView, past: Past, bodies: Bodies) -> tuple[RunView, Past]:
    with _at("input"):
        run = msgspec.structs.replace(run, input=join_whole(run.input, bodies))
    with _at("history"):
        history = [(join_whole(said, bodies), join_whole(answered, bodies)) for said, answered in past.history]
    steps = [_joined_step(step, bodies) for step in past.steps]
    with _at("end"):
        run = msgspec.structs.replace(run, output=join_whole(run.output, bodies))
    return run, Past(history, steps)


def _joined_step(step: Recorded, bodies: Bodies) -> Recorded:
    with _at(step.step):
        return msgspec.structs.replace(step, data=join_fields(step.data, bodies))


@contextmanager
def _at(step: str) -> Iterator[None]:
    try:
        yield
    except Damaged as damage:
        raise DamagedPast(step, damage) from damage
