"""The scripted provider: no model, no network; answers from the conversation alone.

Warning: `times` of a script's errors is counted in this object, for equal conversations together, and is gone with the process.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from hansa_scripted.instance import smallest_instance
from hansa_scripted.script import Place, Turn, find_place
from hansa_sdk import (
    LLMProvider,
    LLMRequest,
    LLMResponse,
    ProviderConfig,
    ProviderRefused,
    ProviderServices,
    ProviderUnavailable,
    Role,
    StopReason,
    TextSink,
    ToolCall,
    Usage,
)

_WORD = re.compile(r"\s*\S+\s*|\s+")
_REMEMBERED = 4096
"""Conversations whose errors are counted at once; the oldest are forgotten first."""


@asynccontextmanager
async def connect(config: ProviderConfig, services: ProviderServices) -> AsyncIterator[LLMProvider]:
    """Open the provider; it needs nothing of either."""
    del config, services
    yield ScriptedProvider()


class ScriptedProvider:
    """An `LLMProvider` that follows the script in the conversation, or else echoes."""

    def __init__(self) -> None:
        self._failed: OrderedDict[bytes, int] = OrderedDict()

    async def complete(self, request: LLMRequest, on_text: TextSink) -> LLMResponse:
        try:
            async with asyncio.timeout(request.timeout):
                return await self._answer(request, on_text)
        except TimeoutError as error:
            raise ProviderUnavailable(f"the script did not finish within {request.timeout:g} s") from error

    async def _answer(self, request: LLMRequest, on_text: TextSink) -> LLMResponse:
        place = find_place(request.messages)
        turn = _unscripted(request) if place is None else await self._reach(request, place)
        pieces, stop = _pieces(turn, request.max_tokens)
        for piece in pieces:
            await asyncio.sleep(turn.delay / len(pieces))
            on_text(piece)
        if not pieces:
            await asyncio.sleep(turn.delay)
        calls = tuple(
            # Numbered by the length of the conversation, so that they stay unique in it and equal in a repeated call.
            ToolCall(id=f"call_{len(request.messages)}_{number}", name=call.name, arguments=call.arguments, malformed=call.malformed)
            for number, call in enumerate(turn.tool_calls)
        )
        text = "".join(pieces)
        read = sum(len(message.text.split()) for message in request.messages)
        return LLMResponse(
            text=text,
            stop_reason=StopReason.TOOL_CALLS if calls else stop,
            model=request.model,
            tool_calls=calls,
            usage=Usage(read, len(text.split()) + len(calls)),
        )

    async def _reach(self, request: LLMRequest, place: Place) -> Turn:
        """The turn that answers, once the errors before it have all been made."""
        key = msgspec.msgpack.encode((request.model, request.messages))
        failed = self._failed.pop(key, 0)
        passed = 0
        for turn in place.errors:
            if turn.times is None or failed < passed + turn.times:
                self._failed[key] = failed + 1
                while len(self._failed) > _REMEMBERED:
                    self._failed.popitem(last=False)
                await _fail(turn, place.number)
            passed += turn.times or 0
        if place.answer is None:
            raise ProviderRefused("the script ends with errors that are over", hint="Add a turn with a text to the script.")
        return place.answer


async def _fail(turn: Turn, number: int) -> None:
    what = f"turn {number + 1} of the script says so"
    if turn.error == "hang":
        await asyncio.Event().wait()
    await asyncio.sleep(turn.delay)
    if turn.error == "refused":
        raise ProviderRefused(what, status=400)
    raise ProviderUnavailable(what, status=503)


def _unscripted(request: LLMRequest) -> Turn:
    if request.output_schema is not None:
        return Turn(text=msgspec.json.encode(smallest_instance(request.output_schema)).decode())
    return Turn(text=next((message.text for message in reversed(request.messages) if message.role is Role.USER), ""))


def _pieces(turn: Turn, max_tokens: int) -> tuple[list[str], StopReason]:
    """The text as it will stream, and why it stops: a word is a token here."""
    words = _WORD.findall(turn.text or "")
    stop = StopReason.END if len(words) <= max_tokens else StopReason.MAX_TOKENS
    words = words[:max_tokens]
    if not turn.chunks or not words:
        return words, stop
    text = "".join(words)
    size = -(-len(text) // turn.chunks)
    return [text[start : start + size] for start in range(0, len(text), size)], stop
