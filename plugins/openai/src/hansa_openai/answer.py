"""Puts an answer together from the chunks of a stream, or from one whole completion. Knows nothing of connections.

Servers differ in how they send tool calls: OpenAI in pieces by index, others whole, without index, without id, or several under
one index; all of these are understood.
"""

from typing import Any
from uuid import uuid4

import msgspec

from hansa_sdk import LLMResponse, StopReason, TextSink, ToolCall, Usage

_STOP_REASONS = {
    "stop": StopReason.END,
    "length": StopReason.MAX_TOKENS,
    "tool_calls": StopReason.TOOL_CALLS,
    "function_call": StopReason.TOOL_CALLS,
    "content_filter": StopReason.REFUSAL,
}


class AnswerBroken(Exception):
    """What arrived can't become an answer; the text follows "the provider ..."."""


class FunctionPart(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class ToolCallPart(msgspec.Struct, frozen=True):
    index: int | None = None
    id: str | None = None
    function: FunctionPart | None = None


class MessagePart(msgspec.Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallPart] | None = None


class Choice(msgspec.Struct, frozen=True):
    """`delta` in a stream, `message` in a whole completion."""

    index: int | None = None
    delta: MessagePart | None = None
    message: MessagePart | None = None
    finish_reason: str | None = None


class TokenCounts(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Chunk(msgspec.Struct, frozen=True):
    """What one event's data, or a whole completion, may hold; everything else in it is of no use here."""

    choices: list[Choice] | None = None
    model: str | None = None
    usage: TokenCounts | None = None
    error: Any = None


class _OpenCall:
    def __init__(self, part: ToolCallPart) -> None:
        self.index = part.index
        self.id = part.id or ""
        self.name = ""
        self.arguments = ""

    def continues_with(self, part: ToolCallPart) -> bool:
        if part.id and self.id:
            return part.id == self.id
        if part.index != self.index:
            return False
        # A name comes once in a call: a second one without an id begins another call under the same index.
        return not (self.name and part.function and part.function.name)

    def add(self, part: ToolCallPart) -> None:
        self.id = self.id or part.id or ""
        if part.function is None:
            return
        self.name = self.name or part.function.name or ""
        arguments = part.function.arguments
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        self.arguments += arguments or ""

    def close(self) -> ToolCall:
        call_id = self.id or f"call_{uuid4().hex}"
        try:
            arguments = msgspec.json.decode(self.arguments.strip() or "{}", type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            return ToolCall(id=call_id, name=self.name, malformed=self.arguments)
        return ToolCall(id=call_id, name=self.name, arguments=arguments)


class Answer:
    """An answer in the making. `limit` bounds its text and arguments in bytes."""

    def __init__(self, *, model: str, limit: int, on_text: TextSink) -> None:
        self._model = model
        self._room = limit
        self._on_text = on_text
        self._text: list[str] = []
        self._calls: list[_OpenCall] = []
        self._stop: str | None = None
        self._refused = False
        self._usage = Usage()
        self._begun = False

    def add(self, chunk: Chunk) -> None:
        """Take one chunk. Raises `AnswerBroken` when the answer outgrows its limit."""
        self._model = chunk.model or self._model
        if chunk.usage is not None:
            self._usage = Usage(chunk.usage.prompt_tokens or 0, chunk.usage.completion_tokens or 0)
        for choice in chunk.choices or ():
            if choice.index:
                continue
            self._begun = True
            self._stop = choice.finish_reason or self._stop
            part = choice.delta or choice.message or MessagePart()
            self._add_text(part.content)
            if part.refusal:
                self._refused = True
                self._add_text(part.refusal)
            for call in part.tool_calls or ():
                self._add_call(call)

    def finish(self) -> LLMResponse:
        """The answer. Raises `AnswerBroken` when there was none."""
        if not self._begun:
            raise AnswerBroken("answered without a choice")
        stop = _STOP_REASONS.get(self._stop or "", StopReason.END)
        if self._refused:
            stop = StopReason.REFUSAL
        elif self._calls and stop is StopReason.END:
            # Some servers stop with "stop" although they call tools.
            stop = StopReason.TOOL_CALLS
        return LLMResponse(
            text="".join(self._text),
            stop_reason=stop,
            model=self._model,
            tool_calls=tuple(call.close() for call in self._calls),
            usage=self._usage,
        )

    def _add_text(self, text: str | None) -> None:
        if text:
            self._spend(text)
            self._text.append(text)
            self._on_text(text)

    def _add_call(self, part: ToolCallPart) -> None:
        call = next((call for call in reversed(self._calls) if call.continues_with(part)), None)
        if call is None:
            call = _OpenCall(part)
            self._calls.append(call)
        before = len(call.arguments)
        call.add(part)
        self._spend(call.arguments[before:])

    def _spend(self, text: str) -> None:
        self._room -= len(text.encode("utf-8", "surrogatepass"))
        if self._room < 0:
            raise AnswerBroken("went on far beyond max_tokens and was cut off")
