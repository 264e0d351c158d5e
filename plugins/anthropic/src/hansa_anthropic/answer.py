"""Puts an answer together from the events of a Messages stream. Knows nothing of connections.

The events are decoded here, strictly where they are used, because the SDK builds its event types without checking them: with
a proxy's nonsense in the stream they would fail later, as attribute errors.
"""

from typing import Any

import msgspec

from hansa_sdk import LLMResponse, StopReason, TextSink, ToolCall, Usage

_STOP_REASONS = {
    "end_turn": StopReason.END,
    "stop_sequence": StopReason.END,
    "pause_turn": StopReason.END,
    "tool_use": StopReason.TOOL_CALLS,
    "max_tokens": StopReason.MAX_TOKENS,
    "model_context_window_exceeded": StopReason.MAX_TOKENS,
    "refusal": StopReason.REFUSAL,
}


class AnswerBroken(Exception):
    """What arrived can't become an answer; the text follows "the provider ..."."""


class TokenCounts(msgspec.Struct, frozen=True):
    """Counts are totals so far; tokens written to or read from the cache are not part of `input_tokens`."""

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None


class Started(msgspec.Struct, frozen=True):
    model: str
    usage: TokenCounts = TokenCounts()


class Block(msgspec.Struct, frozen=True):
    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class Delta(msgspec.Struct, frozen=True):
    type: str = ""
    text: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class Complaint(msgspec.Struct, frozen=True):
    type: str = ""
    message: str = ""


class Event(msgspec.Struct, frozen=True):
    """Any event of the stream; which fields it has depends on `type`. Unknown types and fields are left alone."""

    type: str
    index: int = 0
    message: Started | None = None
    content_block: Block | None = None
    delta: Delta | None = None
    usage: TokenCounts | None = None
    error: Complaint | None = None


class _OpenCall:
    def __init__(self, block: Block) -> None:
        self.id = block.id
        self.name = block.name
        self.given = block.input
        self.pieces: list[str] = []

    def close(self) -> ToolCall:
        text = "".join(self.pieces)
        if not text.strip():
            return ToolCall(id=self.id, name=self.name, arguments=self.given)
        try:
            return ToolCall(id=self.id, name=self.name, arguments=msgspec.json.decode(text, type=dict[str, Any]))
        except (msgspec.DecodeError, RecursionError):
            return ToolCall(id=self.id, name=self.name, malformed=text)


class Answer:
    """An answer in the making. `limit` bounds its text and arguments in bytes."""

    def __init__(self, *, limit: int, on_text: TextSink) -> None:
        self._room = limit
        self._on_text = on_text
        self._text: list[str] = []
        self._calls: dict[int, _OpenCall] = {}
        self._model: str | None = None
        self._counts: dict[str, int] = {}
        self._stop: str | None = None

    def add(self, event: Event) -> LLMResponse | None:
        """Take one event; the last one gives the answer. Raises `AnswerBroken` for what can't be part of one."""
        match event:
            case Event(type="message_start", message=Started() as started):
                self._model = started.model
                self._count(started.usage)
            case Event(type="content_block_start", content_block=Block(type="text") as block):
                self._add_text(block.text)
            case Event(type="content_block_start", content_block=Block(type="tool_use") as block):
                self._calls[event.index] = _OpenCall(block)
            case Event(type="content_block_delta", delta=Delta(type="text_delta") as delta):
                self._add_text(delta.text)
            case Event(type="content_block_delta", delta=Delta(type="input_json_delta") as delta):
                self._add_arguments(event.index, delta.partial_json)
            case Event(type="message_delta", delta=Delta() as delta):
                self._stop = delta.stop_reason or self._stop
                if event.usage is not None:
                    self._count(event.usage)
            case Event(type="message_stop"):
                return self._finish()
            case Event(type="message_start" | "content_block_start" | "content_block_delta" | "message_delta") if not _is_foreign(event):
                raise AnswerBroken(f"sent a {event.type} event without its content")
            case _:
                # Thinking, citations, pings and whatever is invented later.
                return None
        return None

    def _finish(self) -> LLMResponse:
        if self._model is None:
            raise AnswerBroken("ended an answer that never began")
        counts = self._counts
        cached = counts.get("cache_creation_input_tokens", 0) + counts.get("cache_read_input_tokens", 0)
        return LLMResponse(
            text="".join(self._text),
            stop_reason=_STOP_REASONS.get(self._stop or "", StopReason.TOOL_CALLS if self._calls else StopReason.END),
            model=self._model,
            tool_calls=tuple(self._calls[index].close() for index in sorted(self._calls)),
            usage=Usage(counts.get("input_tokens", 0) + cached, counts.get("output_tokens", 0)),
        )

    def _count(self, counts: TokenCounts) -> None:
        # A later event repeats only the counts that it knows better.
        self._counts.update({name: value for name, value in msgspec.structs.asdict(counts).items() if value is not None})

    def _add_text(self, text: str) -> None:
        if text:
            self._spend(text)
            self._text.append(text)
            self._on_text(text)

    def _add_arguments(self, index: int, text: str) -> None:
        self._spend(text)
        call = self._calls.get(index)
        if call is not None:
            call.pieces.append(text)

    def _spend(self, text: str) -> None:
        self._room -= len(text.encode("utf-8", "surrogatepass"))
        if self._room < 0:
            raise AnswerBroken("went on far beyond max_tokens and was cut off")


def _is_foreign(event: Event) -> bool:
    """Whether the event is complete but of a kind that is of no use here, such as a thinking block."""
    return event.content_block is not None or (event.delta is not None and event.delta.type != "")
