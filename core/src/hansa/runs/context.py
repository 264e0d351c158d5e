"""The `RunContext` that runtimes are given: every step answers from the log, or is done and written there.

Knows no database and no messaging; those stand behind the journal. Intent before, result after: for every tool whose effect is
more than a read.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar
from uuid import UUID

import msgspec

from hansa import clock, ids
from hansa.auth.model import IN_RUNS
from hansa.llm.metering import Meter
from hansa.llm.model import LiveText
from hansa.runs import calls
from hansa.runs.budget.metering import NothingLeft, StepMeter
from hansa.runs.journal import Journal
from hansa.runs.model import Entry, EventType, RunView, Wait, as_recorded, plain
from hansa.runs.steps import StepIds, StepLog, check_same, digest
from hansa.runs.waiting import Branches, Waiting
from hansa.tools.service import ToolBox
from hansa_sdk import (
    AgentDefinition,
    CallFailed,
    Completion,
    Effect,
    LLMRequest,
    LLMResponse,
    Message,
    RunFailed,
    ToolCall,
    ToolOutcome,
    ToolSpec,
    Usage,
    WaitExpired,
)

T = TypeVar("T")
MAX_INVALID_CALLS = 3


class Model(Protocol):
    """The agent's model, with its fallbacks, as the gateway has set it up."""

    async def complete(self, request: LLMRequest, live: LiveText, meter: Meter) -> Completion: ...


class Voice(Protocol):
    """Where the text of a step is said to whoever watches."""

    def speak(self, step: str) -> AbstractAsyncContextManager[LiveText]: ...


class Sources(msgspec.Struct, frozen=True):
    """Where values come from that no log foretells: the clock, ids, random numbers."""

    now: Callable[[], datetime] = clock.now
    new_id: Callable[[], UUID] = ids.new_id
    random: Callable[[], float] = random.SystemRandom().random


class Parts(msgspec.Struct, frozen=True):
    """What a context is made of. `depth`: how many calls of agents lead to this run; `may`: what of IN_RUNS it may do."""

    agent: AgentDefinition
    history: tuple[Message, ...]
    tools: ToolBox
    model: Model
    voice: Voice
    journal: Journal
    waiting: Waiting
    depth: int = 0
    sources: Sources = Sources()
    may: frozenset[str] = IN_RUNS


class DurableContext:
    """Implements `hansa_sdk.RunContext`."""

    def __init__(self, run: RunView, recorded: StepLog, parts: Parts) -> None:
        self._run = run
        self._log = recorded
        self._parts = parts
        self._ids = StepIds()
        self._invalid_calls = 0
        self._tainted_by = ""
        self.usage = Usage()
        self.cost = 0
        """What the models took, by their prices, in millionths."""

    @property
    def run_id(self) -> UUID:
        return self._run.id

    @property
    def session_id(self) -> UUID:
        return self._run.session_id

    @property
    def agent(self) -> AgentDefinition:
        return self._parts.agent

    @property
    def input(self) -> Any:
        return self._run.input

    @property
    def history(self) -> tuple[Message, ...]:
        return self._parts.history

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        return self._parts.tools.specs()

    async def llm(self, request: LLMRequest) -> LLMResponse:
        step, asked = self._ids.next(), digest(msgspec.to_builtins(request))
        known = self._log.find(step, (EventType.MODEL_COMPLETED,)).get(EventType.MODEL_COMPLETED)
        if known is not None:
            check_same(step, "model request", known["request_digest"], asked)
            response, cost = msgspec.convert(known, LLMResponse), known.get("cost", 0)
        else:
            self._parts.journal.reach_out(f"the model request at step {step}")
            completion = await self._complete(step, request)
            # The runtime is given what a replay will give it, to the order of keys: else it could tell the two apart.
            response, cost = as_recorded(completion.response, LLMResponse), completion.cost
            data = {
                **msgspec.to_builtins(response),
                "provider": completion.provider,
                "attempts": completion.attempts,
                "cost": completion.cost,
                "request_digest": asked,
            }
            self._parts.journal.put(Entry(EventType.MODEL_COMPLETED, data, step), usage=response.usage)
        self._spend(response.usage, cost)
        return response

    async def _complete(self, step: str, request: LLMRequest) -> Completion:
        """Have the model answer within what the tenant may spend; what that takes is counted whether it answers or not."""
        meter = StepMeter(self._parts.journal, self.agent.name, step)
        try:
            async with self._parts.voice.speak(step) as live:
                completion = await self._parts.model.complete(request, live, meter)
        # Counted whatever went wrong, but not when the call was stopped: then all that is reserved for it may have been spent.
        except Exception as error:
            self._parts.journal.spend(meter.spends)
            if isinstance(error, NothingLeft):
                raise error.consequence() from error
            raise
        self._parts.journal.spend(meter.spends)
        return completion

    def _spend(self, usage: Usage, cost: int) -> None:
        """Count what a model took, and end the run that has taken too much."""
        self.usage, self.cost = self.usage + usage, self.cost + cost
        limits = self.agent.limits
        if limits.tokens and self.usage.input_tokens + self.usage.output_tokens > limits.tokens:
            raise RunFailed(
                f"the run used more than its {limits.tokens} tokens", code="limit_tokens", hint="Raise spec.limits.tokens of the agent."
            )
        if limits.cost and self.cost > limits.cost:
            raise RunFailed(
                f"the run cost {self.cost / 1e6:g}, more than its {limits.cost / 1e6:g}",
                code="limit_cost",
                hint="Raise spec.limits.cost of the agent.",
            )

    async def tool(self, name: str, arguments: dict[str, Any]) -> ToolOutcome:
        step = self._ids.next()
        known = self._log.find(step, calls.TYPES)
        for type_ in calls.SAYS_CALL & known.keys():
            check_same(step, "call of", [known[type_]["name"], known[type_]["arguments"]], [name, arguments])
        done = known.get(EventType.TOOL_COMPLETED)
        if done is not None:
            outcome = msgspec.convert(done, ToolOutcome)
            self._read(step, name, untrusted=done.get("untrusted", False))
        elif EventType.RUN_RETURNED in known:
            outcome = calls.outcome_of(known[EventType.RUN_RETURNED])
            self._read(step, name, untrusted=self._parts.tools.is_untrusted(name))
        else:
            outcome = as_recorded(await self._call(step, calls.Call(name, arguments), dict(known)), ToolOutcome)
        self._invalid_calls = self._invalid_calls + 1 if outcome.invalid_arguments else 0
        if self._invalid_calls >= MAX_INVALID_CALLS:
            raise RunFailed(
                f"the model gave {MAX_INVALID_CALLS} tool calls in a row that can't be made; the last: {outcome.content}",
                code="tool_arguments_invalid",
                hint="A stronger model or plainer instructions help.",
            )
        return outcome

    async def _call(self, step: str, call: calls.Call, known: dict[EventType, Any]) -> ToolOutcome:
        journal, tools = self._parts.journal, self._parts.tools
        journal.reach_out(f"the call of {call.name} at step {step}")
        try:
            # As it was declared when the call was begun: another release of the tool may declare something else, or be gone.
            attempt = calls.next_attempt(known)
        except calls.InDoubt as doubt:
            raise calls.NeedsReview(step, doubt.call) from doubt
        outcome, ran = tools.refusal(call.name, call.arguments), False
        if outcome is None and tools.is_agent(call.name) and EventType.RUN_CALLED not in known:
            outcome = calls.beyond(self.agent.name, self._parts.may)
        if outcome is None and self._asks(call, known):
            outcome = await self._approval(step, call, known)
        if outcome is None and tools.is_agent(call.name):
            refused = None if EventType.RUN_CALLED in known else await self._uncalled(call.name)
            outcome = calls.outcome_of(refused or await self._child(step, call, known))
            if refused is None:
                self._read(step, call.name, untrusted=tools.is_untrusted(call.name))
                return outcome
        if outcome is None:
            effect, key = tools.effect(call.name), f"{self._run.id}:{step}"
            if attempt and effect is not Effect.READ:
                intent = {**msgspec.to_builtins(call), "effect": effect.value, "idempotency_key": key, "attempt": attempt}
                await journal.write(Entry(EventType.TOOL_CALLED, intent, step))
            outcome, ran = await tools.run(ToolCall(id=key, name=call.name, arguments=call.arguments)), True
        said = {**msgspec.to_builtins(call), **msgspec.to_builtins(outcome)}
        if ran and tools.is_untrusted(call.name):
            said["untrusted"] = True  # stands in the log, so that a replay is tainted by the same steps, whatever the tool declares then
            self._read(step, call.name, untrusted=True)
        journal.put(Entry(EventType.TOOL_COMPLETED, said, step))
        return outcome

    def _read(self, step: str, name: str, *, untrusted: bool) -> None:
        """Remember the first answer that strangers may have written."""
        if untrusted and not self._tainted_by:
            self._tainted_by = f"{name} at step {step}"

    def _asks(self, call: calls.Call, known: dict[EventType, Any]) -> bool:
        """Whether a person must approve a call that is not begun. One who was asked already decides, whatever is read meanwhile."""
        if {EventType.TOOL_CALLED, EventType.RUN_CALLED} & known.keys():
            return False
        tools = self._parts.tools
        tainted = bool(self._tainted_by) and tools.needs_approval_once_tainted(call.name)
        return EventType.APPROVAL_REQUESTED in known or tainted or tools.needs_approval(call.name)

    async def _approval(self, step: str, call: calls.Call, known: dict[EventType, Any]) -> ToolOutcome | None:
        """Have a person look at a call; None: it may be made."""
        decided = known.get(EventType.APPROVAL_DECIDED)
        if decided is None:
            said = msgspec.to_builtins(call)
            if self._tainted_by and not self._parts.tools.needs_approval(call.name):
                said["because"] = f"the run has read untrusted text: {self._tainted_by}"
            decided = await self._ask(step, {**said, "kind": "tool"}, {"agent": self.agent.name, **said}, known)
        return calls.refused(decided)

    async def _ask(self, step: str, said: dict[str, Any], subject: dict[str, Any], known: dict[EventType, Any]) -> Any:
        if EventType.APPROVAL_REQUESTED not in known:
            approval, seconds = str(self._parts.sources.new_id()), self.agent.limits.approval or None
            wait = Wait(step, "approval", approval, seconds, {"kind": said["kind"], "subject": subject})
            await self._parts.journal.write(Entry(EventType.APPROVAL_REQUESTED, {**said, "approval_id": approval}, step), wait=wait)
        return (await self._parts.waiting.until(step))[1]

    async def _uncalled(self, agent: str) -> dict[str, Any] | None:
        """What the call of an agent returns that is not to be called; None: it is, and is counted."""
        if self._parts.depth >= calls.MAX_DEPTH:
            return calls.too_deep(agent)
        limit = await self._parts.journal.count_message()
        return None if limit is None else calls.unsent_call(agent, limit)

    async def _child(self, step: str, call: calls.Call, known: dict[EventType, Any]) -> Any:
        """Run another agent; what its run has returned."""
        if EventType.RUN_CALLED not in known:
            child = str(self._parts.sources.new_id())
            asked = {"agent": call.name, "input": call.arguments["input"], "may": sorted(self._parts.may)}
            wait = Wait(step, "child", child, None, asked)
            await self._parts.journal.write(Entry(EventType.RUN_CALLED, {**msgspec.to_builtins(call), "run_id": child}, step), wait=wait)
        return (await self._parts.waiting.until(step))[1]

    async def call(self, agent: str, input: Any) -> Any:
        if not self._parts.tools.is_agent(agent):
            raise CallFailed(
                f"agent {self.agent.name} may not call {agent!r}", reason="not_allowed", hint=f"Add `agent: {agent}` to its spec.tools."
            )
        outcome = await self.tool(agent, {"input": plain(input)})
        if outcome.is_error:
            raise CallFailed(str(outcome.content), reason="run_failed")
        return outcome.content

    async def ask(self, question: str) -> Any:
        step = self._ids.next()
        known = dict(self._log.find(step, (EventType.APPROVAL_REQUESTED, EventType.APPROVAL_DECIDED)))
        if EventType.APPROVAL_REQUESTED in known:
            check_same(step, "question", known[EventType.APPROVAL_REQUESTED]["question"], question)
        decided = known.get(EventType.APPROVAL_DECIDED)
        if decided is None:
            self._parts.journal.reach_out(f"the question at step {step}")
            said = {"kind": "question", "question": question}
            decided = await self._ask(step, said, {"agent": self.agent.name, "question": question}, known)
        if decided["decision"] != "answered":
            raise WaitExpired(
                f"nobody answered the question: it {decided['decision']}", hint="See spec.limits.approvalSeconds of the agent."
            )
        return plain(decided["answer"])

    async def sleep(self, seconds: float) -> None:
        step = self._ids.next()
        known = self._log.find(step, (EventType.TIMER_STARTED, EventType.TIMER_FIRED))
        if EventType.TIMER_STARTED in known:
            check_same(step, "timer of", known[EventType.TIMER_STARTED]["seconds"], seconds)
        if EventType.TIMER_FIRED in known:
            return
        self._parts.journal.reach_out(f"the timer at step {step}")
        if EventType.TIMER_STARTED not in known:
            wait = Wait(step, "timer", seconds=max(0.0, seconds))
            await self._parts.journal.write(Entry(EventType.TIMER_STARTED, {"seconds": seconds}, step), wait=wait)
        await self._parts.waiting.until(step)

    async def wait_event(self, name: str, *, seconds: float | None = None) -> Any:
        step = self._ids.next()
        known = self._log.find(step, (EventType.EVENT_AWAITED, EventType.EVENT_RECEIVED))
        if EventType.EVENT_AWAITED in known:
            check_same(step, "event", known[EventType.EVENT_AWAITED]["name"], name)
        received = known.get(EventType.EVENT_RECEIVED)
        if received is None:
            self._parts.journal.reach_out(f"the event at step {step}")
            if EventType.EVENT_AWAITED not in known:
                wait = Wait(step, "event", name, seconds)
                await self._parts.journal.write(Entry(EventType.EVENT_AWAITED, {"name": name, "seconds": seconds}, step), wait=wait)
            received = (await self._parts.waiting.until(step))[1]
        if received.get("expired"):
            raise WaitExpired(f"no event {name!r} came within its time")
        return plain(received["data"])

    async def publish(self, name: str, data: Any) -> None:
        step = self._ids.next()
        known = self._log.find(step, (EventType.VALUE_RECORDED,)).get(EventType.VALUE_RECORDED)
        if known is not None:
            check_same(step, "event", [known["kind"], known["value"]], ["event", name])
            return
        self._parts.journal.reach_out(f"the event at step {step}")
        heard = calls.heard_in(self.agent.name, self._parts.may)
        limit = await self._parts.journal.count_message()
        if limit is not None:
            raise calls.unsent_event(name, limit)
        wait = Wait(step, "publish", name, data={"data": plain(data), **heard})
        await self._parts.journal.write(Entry(EventType.VALUE_RECORDED, {"kind": "event", "value": name}, step), wait=wait)

    async def gather(self, *branches: Awaitable[T]) -> list[T]:
        step = self._ids.next()
        if not branches:
            return []
        places = Branches(self._parts.waiting, len(branches))

        async def branch(prefix: str, work: Awaitable[T]) -> T:
            result = await self._ids.branch(prefix, work)
            places.done()
            return result

        tasks = [asyncio.create_task(branch(f"{step}.{n}.", work), name=f"branch {step}.{n}") for n, work in enumerate(branches)]
        for task, work in zip(tasks, branches, strict=True):
            if asyncio.iscoroutine(work):  # it may be stopped before it has begun, and would complain that nobody awaited it
                task.add_done_callback(partial(_close, work))
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            places.close()

    def unasked(self) -> tuple[str, str] | None:
        """The first step in the log that the runtime has not come to, (id, type): for replays of runs that were completed."""
        return self._log.unasked()

    def now(self) -> datetime:
        return datetime.fromisoformat(self._value("now", lambda: self._parts.sources.now().isoformat()))

    def uuid(self) -> UUID:
        return UUID(self._value("uuid", lambda: str(self._parts.sources.new_id())))

    def random(self) -> float:
        return float(self._value("random", self._parts.sources.random))

    def log(self, message: str) -> None:
        step = self._ids.next()
        if not self._log.find(step, (EventType.LOG,)):
            self._parts.journal.note(Entry(EventType.LOG, {"message": message}, step))

    def _value(self, kind: str, draw: Any) -> Any:
        """A value from outside: noted now, written with the next step, so that nothing durable can depend on an unwritten one."""
        step = self._ids.next()
        known = self._log.find(step, (EventType.VALUE_RECORDED,)).get(EventType.VALUE_RECORDED)
        if known is not None:
            check_same(step, "value of kind", known["kind"], kind)
            return known["value"]
        value = draw()
        self._parts.journal.note(Entry(EventType.VALUE_RECORDED, {"kind": kind, "value": value}, step))
        return value


def _close(work: Coroutine[Any, Any, Any], _: "asyncio.Task[Any]") -> None:
    work.close()
