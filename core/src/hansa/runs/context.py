"""The `RunContext` that runtimes are given: every step answers from the log, or is done and written there.

Knows no database and no messaging; those stand behind the journal. Intent before, result after: for every tool whose effect is
more than a read.
"""

import asyncio
import random
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

import msgspec

from hansa import clock, ids
from hansa.llm.service import LiveText
from hansa.runs.journal import Journal
from hansa.runs.model import Entry, EventType, RunView, as_recorded
from hansa.runs.steps import StepIds, StepLog, check_same, digest
from hansa.tools.service import ToolBox
from hansa_sdk import (
    AgentDefinition,
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
)

T = TypeVar("T")
MAX_INVALID_CALLS = 3


class NeedsReview(asyncio.CancelledError):
    """A call with an unsafe effect was begun and nobody knows whether it was done: a person must decide."""

    def __init__(self, step: str, name: str, arguments: dict[str, Any]) -> None:
        super().__init__(f"{name} at step {step}")
        self.step = step
        self.name = name
        self.arguments = arguments


class Model(Protocol):
    """The agent's model, with its fallbacks, as the gateway has set it up."""

    async def complete(self, request: LLMRequest, live: LiveText) -> Completion: ...


class Voice(Protocol):
    """Where the text of a step is said to whoever watches."""

    def speak(self, step: str) -> AbstractAsyncContextManager[LiveText]: ...


class Parts(msgspec.Struct, frozen=True):
    """What a context is made of."""

    agent: AgentDefinition
    history: tuple[Message, ...]
    tools: ToolBox
    model: Model
    voice: Voice
    journal: Journal


class DurableContext:
    """Implements `hansa_sdk.RunContext`."""

    def __init__(self, run: RunView, recorded: StepLog, parts: Parts) -> None:
        self._run = run
        self._log = recorded
        self._parts = parts
        self._ids = StepIds()
        self._invalid_calls = 0
        self.usage = Usage()

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
            response = msgspec.convert(known, LLMResponse)
        else:
            self._parts.journal.reach_out(f"the model request at step {step}")
            async with self._parts.voice.speak(step) as live:
                completion = await self._parts.model.complete(request, live)
            # The runtime is given what a replay will give it, to the order of keys: else it could tell the two apart.
            response = as_recorded(completion.response, LLMResponse)
            data = {
                **msgspec.to_builtins(response),
                "provider": completion.provider,
                "attempts": completion.attempts,
                "request_digest": asked,
            }
            await self._parts.journal.write(Entry(EventType.MODEL_COMPLETED, data, step), usage=response.usage)
        self.usage = self.usage + response.usage
        bound = self.agent.limits.tokens
        if bound and self.usage.input_tokens + self.usage.output_tokens > bound:
            raise RunFailed(
                f"the run used more than its {bound} tokens", code="limit_tokens", hint="Raise spec.limits.tokens of the agent."
            )
        return response

    async def tool(self, name: str, arguments: dict[str, Any]) -> ToolOutcome:
        step = self._ids.next()
        known = self._log.find(step, (EventType.TOOL_CALLED, EventType.TOOL_COMPLETED))
        for data in known.values():
            check_same(step, "call of", [data["name"], data["arguments"]], [name, arguments])
        done = known.get(EventType.TOOL_COMPLETED)
        if done is not None:
            outcome = msgspec.convert(done, ToolOutcome)
        else:
            outcome = as_recorded(await self._call(step, name, arguments, intent=known.get(EventType.TOOL_CALLED)), ToolOutcome)
        self._invalid_calls = self._invalid_calls + 1 if outcome.invalid_arguments else 0
        if self._invalid_calls >= MAX_INVALID_CALLS:
            raise RunFailed(
                f"the model gave {MAX_INVALID_CALLS} tool calls in a row that can't be made; the last: {outcome.content}",
                code="tool_arguments_invalid",
                hint="A stronger model or plainer instructions help.",
            )
        return outcome

    async def _call(self, step: str, name: str, arguments: dict[str, Any], *, intent: Any) -> ToolOutcome:
        self._parts.journal.reach_out(f"the call of {name} at step {step}")
        refused = self._parts.tools.refusal(name, arguments)
        said = {"name": name, "arguments": arguments}
        # As it was declared when the call was begun: another release of the tool may declare something else, or be gone.
        if intent is not None and intent["effect"] == Effect.UNSAFE:
            raise NeedsReview(step, name, arguments)
        if refused is not None:
            outcome = refused
        else:
            effect, key = self._parts.tools.effect(name), f"{self._run.id}:{step}"
            if intent is None and effect is not Effect.READ:
                await self._parts.journal.write(
                    Entry(EventType.TOOL_CALLED, {**said, "effect": effect.value, "idempotency_key": key}, step)
                )
            outcome = await self._parts.tools.run(ToolCall(id=key, name=name, arguments=arguments))
        await self._parts.journal.write(Entry(EventType.TOOL_COMPLETED, {**said, **msgspec.to_builtins(outcome)}, step))
        return outcome

    async def gather(self, *branches: Awaitable[T]) -> list[T]:
        step = self._ids.next()
        tasks = [
            asyncio.create_task(self._ids.branch(f"{step}.{n}.", branch), name=f"branch {step}.{n}") for n, branch in enumerate(branches)
        ]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def unasked(self) -> tuple[str, str] | None:
        """The first step in the log that the runtime has not come to, (id, type): for replays of runs that were completed."""
        return self._log.unasked()

    def now(self) -> datetime:
        return datetime.fromisoformat(self._value("now", lambda: clock.now().isoformat()))

    def uuid(self) -> UUID:
        return UUID(self._value("uuid", lambda: str(ids.new_id())))

    def random(self) -> float:
        return float(self._value("random", random.SystemRandom().random))

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
