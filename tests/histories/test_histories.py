"""What was recorded is replayed equal by the code that is here; code that does something else is found out, by its step."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from doubles.witness_plugin import Steps
from hansa.plugins.model import Plugins
from hansa.runs.model import EventType
from hansa_sdk import RunContext
from histories.corpus import Stage, files, open_stage, plugins, read

HERE = files()
WITHOUT_STEP = {each for each in EventType if each.value.startswith("run.")} - {EventType.RUN_CALLED, EventType.RUN_RETURNED}


@pytest.fixture(scope="module")
def loaded() -> Plugins:
    return plugins()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with open_stage() as opened:
        yield opened


def of(name: str) -> list[Path]:
    """The histories of that name, of every version."""
    return [path for path in HERE if path.stem == name]


@pytest.mark.parametrize("path", HERE, ids=lambda path: f"{path.parent.name}-{path.stem}")
async def test_a_recorded_run_replays_equal(stage: Stage, loaded: Plugins, path: Path) -> None:
    shown = await stage.replay(read(path), loaded)
    assert (shown.equal, shown.digest) == (True, shown.recorded_digest), shown


def test_every_kind_of_step_and_of_end_is_recorded() -> None:
    histories = [read(path) for path in HERE]
    assert {event.type for history in histories for event in history.past.steps} == set(EventType) - WITHOUT_STEP
    assert {history.run.state for history in histories} == {"completed", "failed", "canceled", "needs_review"}
    assert {len(history.past.history) for history in histories} >= {0, 1, 2}


@pytest.mark.parametrize(
    ("name", "step", "what"),
    [
        ("fickle-call", "2", "secondelsewhere"),
        ("fickle-kind-of-step", "2", "value.recorded"),
        ("fickle-fewer-steps", "2", "not asked for"),
    ],
)
async def test_a_runtime_that_was_changed_since_is_named_by_its_step(
    stage: Stage, loaded: Plugins, monkeypatch: pytest.MonkeyPatch, name: str, step: str, what: str
) -> None:
    monkeypatch.setenv("HANSA_TOOL_FICKLE", "elsewhere")
    for path in of(name):
        shown = await stage.replay(read(path), loaded)
        assert shown.diverged_at is not None
        assert (shown.equal, shown.diverged_at.step) == (False, step)
        assert what in shown.diverged_at.got


class Chatty(Steps):
    """The next version of `steps`: it draws a number before it begins."""

    async def run(self, context: RunContext) -> Any:
        context.random()
        return await super().run(context)


async def test_a_step_more_than_there_was_is_found_in_every_run_that_had_one(stage: Stage, loaded: Plugins) -> None:
    changed = msgspec.structs.replace(loaded, runtimes={**loaded.runtimes, "steps": ("witness", Chatty())})
    histories = [read(path) for path in HERE]
    of_steps = [each for each in histories if each.world.manifest["spec"].get("runtime") == {"name": "steps"}]
    assert len(of_steps) >= 8
    for history in of_steps:
        shown = await stage.replay(history, changed)
        assert shown.diverged_at is not None
        begins = history.past.steps[0].step  # a gather is a step that nothing is written of
        assert shown.diverged_at.step == ("1" if begins == "1" else "end")
        assert shown.diverged_at.got.startswith("value.recorded")


@pytest.mark.parametrize("path", of("loop"), ids=lambda path: path.parent.name)
async def test_a_changed_answer_in_a_file_is_found(stage: Stage, loaded: Plugins, path: Path) -> None:
    history = read(path)
    for number, event in enumerate(history.past.steps):
        if event.type is EventType.TOOL_COMPLETED:
            other = msgspec.structs.replace(event, data={**event.data, "content": "something else"})
            recorded = [*history.past.steps[:number], other, *history.past.steps[number + 1 :]]
            past = msgspec.structs.replace(history.past, steps=recorded)
            shown = await stage.replay(msgspec.structs.replace(history, past=past), loaded)
            assert not shown.equal
