"""The provider: one conversation in, one answer out, through the engine.

Loads nothing itself: the engine does, at the first question.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec

from hansa_local.answer import Plain, Reader, ToolOrAnswer
from hansa_local.constraint import Constraint
from hansa_local.conversation import constraint_of, question_of
from hansa_local.engine import Engine, Residence
from hansa_local.weights import MODEL
from hansa_sdk import (
    LLMProvider,
    LLMRequest,
    LLMResponse,
    ProviderConfig,
    ProviderError,
    ProviderRefused,
    ProviderServices,
    ProviderUnavailable,
    StopReason,
    TextSink,
    Usage,
)


class Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class Choice(msgspec.Struct, frozen=True):
    delta: Delta = Delta()
    finish_reason: str | None = None


class TokenCounts(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Fault(msgspec.Struct, frozen=True):
    message: str = "no reason given"
    code: int = 500
    type: str = ""
    n_prompt_tokens: int = 0
    n_ctx: int = 0


class Chunk(msgspec.Struct, frozen=True):
    """What is used of a chunk of llama.cpp."""

    choices: tuple[Choice, ...] = ()
    usage: TokenCounts | None = None
    error: Fault | None = None


@asynccontextmanager
async def connect(engine: Engine, config: ProviderConfig, services: ProviderServices) -> AsyncIterator[LLMProvider]:
    """Open the provider. Raises `ProviderRefused` when it is given what it can't use, or its weights are missing."""
    del services
    if config.endpoint is not None or config.credential is not None:
        raise ProviderRefused(
            f"provider {config.name!r} runs on this machine: it takes neither an endpoint nor credentials",
            hint="Remove spec.endpoint and spec.credentials, or name another plugin.",
        )
    async with engine.lease() as residence:
        yield LocalProvider(residence)


class LocalProvider:
    """An `LLMProvider` over a model in this process."""

    def __init__(self, residence: Residence) -> None:
        self._residence = residence

    async def complete(self, request: LLMRequest, on_text: TextSink) -> LLMResponse:
        if request.model != MODEL:
            raise ProviderRefused(f"there is no local model {request.model!r}", hint=f"The one there is: {MODEL}.")
        try:
            async with asyncio.timeout(request.timeout):
                return await self._answer(request, on_text)
        except TimeoutError as error:
            raise ProviderUnavailable(
                f"the local model did not finish within {request.timeout:g} s", hint="A shorter conversation or a smaller maxTokens helps."
            ) from error

    async def _answer(self, request: LLMRequest, on_text: TextSink) -> LLMResponse:
        try:
            return await self._constrained(request, constraint_of(request), on_text)
        except _Unconstrained:
            # Only the form is left to a grammar then; whoever asked validates the rest.
            return await self._constrained(request, constraint_of(request, exact=False), on_text)

    async def _constrained(self, request: LLMRequest, constraint: Constraint, on_text: TextSink) -> LLMResponse:
        """Raises `_Unconstrained`, before any text, when llama.cpp dropped the grammar."""
        reader: Reader = Plain(on_text, prefix=constraint.prefix, suffix=constraint.suffix)
        if request.tools:
            # Numbered by the length of the conversation, so that it stays unique in it and equal in a repeated question.
            call_id = f"call_{len(request.messages)}"
            reader = ToolOrAnswer(on_text, call_id=call_id, as_json=request.output_schema is not None)
        expected = constraint.opening
        finish: str | None = None
        usage = TokenCounts()
        async with aclosing(self._residence.ask(question_of(request, constraint))) as raw_chunks:
            async for raw in raw_chunks:
                chunk = _understood(raw)
                usage = chunk.usage or usage
                for choice in chunk.choices:
                    finish = choice.finish_reason or finish
                    piece = choice.delta.content
                    if piece:
                        if not piece.startswith(expected):
                            raise _Unconstrained
                        expected = ""
                        reader.read(piece)
        if finish is None:
            raise ProviderUnavailable("the local model broke off in the middle of its answer")
        cut = finish == "length"
        text, call = reader.finish(whole=not cut)
        stop = StopReason.MAX_TOKENS if cut else StopReason.TOOL_CALLS if call else StopReason.END
        return LLMResponse(text, stop, MODEL, (call,) if call else (), Usage(usage.prompt_tokens, usage.completion_tokens))


class _Unconstrained(Exception):
    """llama.cpp could not compile the grammar, and went on without it."""


def _understood(raw: dict[str, Any]) -> Chunk:
    chunk = msgspec.convert(raw, Chunk)
    if chunk.error is not None:
        raise _failure(chunk.error)
    return chunk


def _failure(fault: Fault) -> ProviderError:
    if fault.type == "exceed_context_size_error":
        return ProviderRefused(
            f"the conversation is too long for {MODEL}: {fault.n_prompt_tokens} tokens, and it holds {fault.n_ctx}",
            hint="Shorten the input or the instructions, or name a model with a longer context.",
            status=fault.code,
        )
    if 400 <= fault.code < 500:
        return ProviderRefused(f"llama.cpp does not take this request: {fault.message}", status=fault.code)
    return ProviderUnavailable(f"llama.cpp failed: {fault.message}", status=fault.code)
