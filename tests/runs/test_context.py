"""The durable context by itself: what a step is called, what is written before what, and that a second life repeats the first."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from hansa.egress.client import open_client
from hansa.egress.policy import EgressPolicy
from hansa.llm.metering import Meter
from hansa.llm.model import LiveText
from hansa.runs.calls import NeedsReview
from hansa.runs.context import DurableContext, Parts
from hansa.runs.journal import NOTHING, ReplayEnded, ReplayJournal
from hansa.runs.model import Ask, End, Entry, EventType, Grant, Recorded, RunView, Spend, Unsent, Wait, plain
from hansa.runs.steps import Diverged, StepLog
from hansa.runs.voice import Silence
from hansa.runs.waiting import Waiting
from hansa.tools.model import Selection
from hansa.tools.service import Surroundings, ToolBox
from hansa_sdk import (
    AgentDefinition,
    Completion,
    Effect,
    LLMRequest,
    LLMResponse,
    Message,
    Role,
    RunContext,
    RunFailed,
    StopReason,
    Tool,
    ToolContext,
    ToolFailed,
    Usage,
    tool,
)

RUN = RunView(UUID(int=1), UUID(int=2), "a", 1, "running", "go")
ASK = LLMRequest((Message(Role.USER, "hello"),))


class Pages:
    """A journal in memory; `done` also holds what the tools have done, so that the order of both can be seen."""

    def __init__(self, done: list[str]) -> None:
        self.entries: list[Entry] = []
        self._noted: list[Entry] = []
        self._done = done

    def note(self, entry: Entry) -> None:
        self._noted.append(entry)

    def reach_out(self, what: str) -> None:
        """Nobody else owns the run."""

    metered = False

    def put(self, entry: Entry, *, usage: Usage = NOTHING) -> None:
        self._keep(entry)

    async def reserve(self, ask: Ask) -> Grant:
        return Grant("granted", ask.output_tokens)

    async def count_message(self) -> Unsent | None:
        return None

    def spend(self, spends: Sequence[Spend]) -> None:
        """No budget is looked at here."""

    async def write(self, *entries: Entry, wait: Wait | None = None, end: End | None = None) -> str:
        self._keep(*entries)
        return "running"

    def _keep(self, *entries: Entry) -> None:
        written = [*self._noted, *entries]
        self._noted.clear()
        self.entries.extend(written)
        self._done.extend(f"{entry.type.value} {entry.step}" for entry in written)

    def recorded(self) -> list[Recorded]:
        return [Recorded(entry.type, entry.step, plain(entry.data)) for entry in self.entries if entry.step is not None]


class Parrot:
    """A model that answers with what it is told."""

    async def complete(self, request: LLMRequest, live: LiveText, meter: Meter) -> Completion:
        return Completion(LLMResponse(request.messages[-1].text, StopReason.END, "parrot", usage=Usage(3, 4)), "p", 1)


class Desk:
    """Contexts over one journal, with tools that say what they do."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.done: list[str] = []
        self.pages = Pages(self.done)
        self._surroundings = surroundings
        self.agent = AgentDefinition("a", 1, "Be.")

    def tools(self) -> dict[str, tuple[str, Tool]]:
        def make(effect: Effect) -> Tool:
            async def act(context: ToolContext, *, pause: float = 0.0, fail: bool = False) -> str:
                """Act."""
                self.done.append(f"{effect.value} under {context.idempotency_key}")
                await asyncio.sleep(pause)
                if fail:
                    raise ToolFailed("it did not work", hint="Try later.")
                return effect.value

            return tool(effect=effect, name=f"do_{effect.value}")(act)

        return {f"do_{effect.value}": ("desk", make(effect)) for effect in Effect}

    def context(self, recorded: list[Recorded] | None = None, *, replay: bool = False) -> DurableContext:
        journal = ReplayJournal() if replay else self.pages
        box = ToolBox(Selection(self.tools()), self._surroundings)
        parts = Parts(self.agent, (), box, Parrot(), Silence(), journal, Waiting(lambda: None))
        return DurableContext(RUN, StepLog(recorded or []), parts)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_client(EgressPolicy()) as http:
        yield Desk(Surroundings(tmp_path, http, {}))


@pytest.mark.parametrize("pauses", [(0.0, 0.02, 0.04), (0.04, 0.02, 0.0), (0.02, 0.0, 0.04)])
async def test_step_ids_do_not_depend_on_which_branch_is_faster(desk: Desk, pauses: tuple[float, float, float]) -> None:
    context = desk.context()

    async def branch(pause: float, *more: Awaitable[Any]) -> list[Any]:
        await asyncio.sleep(pause)
        await context.tool("do_keyed", {"pause": pause})
        inner = await context.gather(*more) if more else []
        await context.llm(ASK)
        return [pause, *inner]

    async def inner(pause: float) -> str:
        await asyncio.sleep(pause)
        return str((await context.tool("do_read", {})).content)

    await context.llm(ASK)
    found = await context.gather(branch(pauses[0]), branch(pauses[1], inner(pauses[2]), inner(pauses[0])), branch(pauses[2]))
    await context.llm(ASK)
    assert found == [[pauses[0]], [pauses[1], "read", "read"], [pauses[2]]]
    steps = sorted({entry.step for entry in desk.pages.entries if entry.step})
    assert steps == ["1", "2.0.1", "2.0.2", "2.1.1", "2.1.2.0.1", "2.1.2.1.1", "2.1.3", "2.2.1", "2.2.2", "3"]


async def everything(context: RunContext) -> list[Any]:
    """A runtime that uses all there is."""

    async def branch(number: int) -> list[Any]:
        await asyncio.sleep(context.random() / 50)
        return [number, str(context.uuid()), (await context.tool("do_unsafe", {})).content, context.random()]

    before = context.now()
    branches = await context.gather(branch(1), branch(2), branch(3))
    context.log("half way")
    answer = await context.llm(ASK)
    return [before.isoformat(), branches, answer.text, str(context.uuid()), context.random(), context.now().isoformat()]


async def test_a_second_life_repeats_the_first_without_doing_anything(desk: Desk) -> None:
    first = await everything(desk.context())
    await desk.pages.write()
    recorded, done = desk.pages.recorded(), list(desk.done)
    assert await everything(desk.context(recorded)) == first
    assert await everything(desk.context(recorded, replay=True)) == first
    assert desk.done == done
    assert first[0] != first[-1]


@pytest.mark.parametrize("cut", range(1, 16))
async def test_a_life_that_ended_anywhere_is_gone_on_with(desk: Desk, cut: int) -> None:
    """No call is made twice, except where only its intent was written; then it is told."""
    await everything(desk.context())
    await desk.pages.write()
    recorded, before = desk.pages.recorded()[:cut], [line for line in desk.done if " under " in line]
    desk.done.clear()
    known = {event.step for event in recorded if event.type is EventType.TOOL_COMPLETED}
    begun = {event.step for event in recorded if event.type is EventType.TOOL_CALLED} - known
    try:
        await everything(desk.context(recorded))
        reviewed = False
    except NeedsReview as review:
        reviewed = review.step in begun
    again = [line for line in desk.done if " under " in line]
    assert reviewed == bool(begun)
    assert not {f"unsafe under {RUN.id}:{step}" for step in known | begun} & set(again)
    assert set(again) <= set(before)


async def test_a_value_is_written_before_anything_can_depend_on_it(desk: Desk) -> None:
    context = desk.context()
    context.uuid()
    context.now()
    assert desk.pages.entries == []
    await context.tool("do_keyed", {})
    assert desk.done == ["value.recorded 1", "value.recorded 2", "tool.called 3", f"keyed under {RUN.id}:3", "tool.completed 3"]


@pytest.mark.parametrize("effect", Effect)
async def test_what_a_second_life_does_with_a_call_that_was_begun(desk: Desk, effect: Effect) -> None:
    name = f"do_{effect.value}"
    await desk.context().tool(name, {})
    events = desk.pages.recorded()
    assert (EventType.TOOL_CALLED in {event.type for event in events}) == (effect is not Effect.READ)
    intent = [event for event in events if event.type is EventType.TOOL_CALLED]
    before = list(desk.done)
    if effect is Effect.UNSAFE:
        with pytest.raises(NeedsReview):
            await desk.context(intent).tool(name, {})
        assert desk.done == before
    else:
        assert (await desk.context(intent).tool(name, {})).content == effect.value
        again = desk.done[len(before) :]
        assert again[-2:] == [f"{effect.value} under {RUN.id}:1", "tool.completed 1"]


async def test_a_begun_call_that_was_unsafe_then_is_reviewed_whatever_the_tool_says_now(desk: Desk) -> None:
    for name, arguments in (("do_keyed", {}), ("gone", {}), ("do_unsafe", {"no": 1})):
        data = {"name": name, "arguments": arguments, "effect": "unsafe", "idempotency_key": "k"}
        with pytest.raises(NeedsReview):
            await desk.context([Recorded(EventType.TOOL_CALLED, "1", data)]).tool(name, arguments)
    assert desk.done == []


async def test_a_review_within_a_branch_comes_through_and_stops_the_others(desk: Desk) -> None:
    intent = Recorded(EventType.TOOL_CALLED, "1.0.1", {"name": "do_unsafe", "arguments": {}, "effect": "unsafe", "idempotency_key": "k"})
    context = desk.context([intent])
    with pytest.raises(NeedsReview):
        await context.gather(context.tool("do_unsafe", {}), context.tool("do_read", {"pause": 30}))
    assert f"read under {RUN.id}:1.1.1" in desk.done
    assert "tool.completed 1.1.1" not in desk.done


async def test_a_replay_ends_before_anything_is_asked_or_done(desk: Desk) -> None:
    with pytest.raises(ReplayEnded):
        await desk.context(replay=True).llm(ASK)
    for name in ("do_read", "do_keyed", "no_such_tool"):
        with pytest.raises(ReplayEnded):
            await desk.context(replay=True).tool(name, {})
    intent = Recorded(EventType.TOOL_CALLED, "1", {"name": "do_keyed", "arguments": {}, "effect": "keyed", "idempotency_key": "k"})
    with pytest.raises(ReplayEnded):
        await desk.context([intent], replay=True).tool("do_keyed", {})
    assert desk.done == []


async def test_another_request_call_or_value_is_a_divergence(desk: Desk) -> None:
    first = desk.context()
    await first.llm(ASK)
    await first.tool("do_read", {})
    first.now()
    await desk.pages.write()
    recorded = desk.pages.recorded()
    with pytest.raises(Diverged, match="step 1 was model request"):
        await desk.context(recorded).llm(LLMRequest((Message(Role.USER, "goodbye"),)))
    with pytest.raises(Diverged, match=r"step 1 was model\.completed in the log and is now tool\.completed"):
        await desk.context(recorded).tool("do_read", {})
    second = desk.context(recorded)
    await second.llm(ASK)
    with pytest.raises(Diverged, match="step 2"):
        await second.tool("do_read", {"pause": 1.0})
    third = desk.context(recorded)
    await third.llm(ASK)
    await third.tool("do_read", {})
    with pytest.raises(Diverged, match='step 3 was value of kind "now" in the log and is now value of kind "uuid"'):
        third.uuid()


async def test_three_wrong_calls_in_a_row_end_the_run_and_a_good_one_starts_the_count_again(desk: Desk) -> None:
    context = desk.context()
    wrong: tuple[tuple[str, Mapping[str, Any]], ...] = (("do_read", {"pause": "long"}), ("no_such_tool", {}))
    for name, arguments in wrong:
        outcome = await context.tool(name, dict(arguments))
        assert outcome.is_error
        assert outcome.invalid_arguments
    assert not (await context.tool("do_read", {})).is_error
    for name, arguments in wrong:
        await context.tool(name, dict(arguments))
    with pytest.raises(RunFailed, match="3 tool calls in a row") as failed:
        await context.tool("do_read", {"other": 1})
    assert failed.value.reason == "tool_arguments_invalid"
    assert sum(" under " in line for line in desk.done) == 1


async def test_a_tools_failure_is_an_outcome(desk: Desk) -> None:
    outcome = await desk.context().tool("do_keyed", {"fail": True})
    assert (outcome.is_error, outcome.invalid_arguments, outcome.content) == (True, False, "it did not work. Try later.")


@asynccontextmanager
async def no_answer() -> AsyncIterator[None]:
    """Nothing within may take long: for awaits that must not hang."""
    async with asyncio.timeout(5):
        yield


async def test_a_branch_that_fails_stops_the_others_and_the_failure_comes_through(desk: Desk) -> None:
    context = desk.context()

    async def fails() -> None:
        await asyncio.sleep(0.01)
        raise RunFailed("no", code="no")

    async with no_answer():
        with pytest.raises(RunFailed, match="no"):
            await context.gather(context.tool("do_read", {"pause": 60}), fails())
