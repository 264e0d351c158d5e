"""A plugin for tests that can't keep a secret: a provider and tools that repeat what they were given wherever they can.

Beside each secret they say the decoy (HANSA_TOOL_DECOY), which nobody knows to be one: where it does not turn up, nobody has looked.
"""

import base64
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from hansa_sdk import (
    LLMProvider,
    LLMRequest,
    LLMResponse,
    ProviderConfig,
    ProviderKind,
    ProviderRefused,
    ProviderServices,
    ProviderUnavailable,
    StopReason,
    TextSink,
    Tool,
    ToolCall,
    ToolContext,
    ToolFailed,
    hookimpl,
    tool,
)

HANSA_API_VERSION = 1
log = logging.getLogger("blabber")
log.warning("loaded beside %s", os.environ.get("HANSA_TOOL_DECOY", ""))


def told(secret: str) -> str:
    """A secret in several forms, and the decoy."""
    basic = base64.b64encode(f"user:{secret}".encode()).decode()
    return f"<{secret}> <{basic}> <{os.environ.get('HANSA_TOOL_DECOY', '')}>"


class Blabber:
    """Does with its key what the model is called: says it, refuses with it, breaks with it."""

    def __init__(self, key: str) -> None:
        self._key = key

    async def complete(self, request: LLMRequest, on_text: TextSink) -> LLMResponse:
        log.warning("asked with %s", told(self._key))
        match request.model:
            case "refuses":
                raise ProviderRefused(f"the key {told(self._key)} is not good", hint=f"Take another one than {told(self._key)}", status=401)
            case "away":
                raise ProviderUnavailable(f"too busy for {told(self._key)}", retry_after=0.01)
            case "breaks":
                raise LookupError(told(self._key))
            case "repeats":
                text = request.messages[-1].text
            case _:
                text = told(self._key)
        for letter in text:
            on_text(letter)
        calls = (
            () if request.messages[-1].role == "tool" or not request.tools else tuple(_call(spec.name, self._key) for spec in request.tools)
        )
        return LLMResponse(text, StopReason.TOOL_CALLS if calls else StopReason.END, f"of {self._key}", calls)


def _call(name: str, key: str) -> ToolCall:
    return ToolCall(f"call-{name}", name, {"said": told(key)})


@asynccontextmanager
async def opened(config: ProviderConfig, services: ProviderServices) -> AsyncIterator[LLMProvider]:
    yield Blabber(config.credential or "")


@tool(effect="unsafe", secrets=("password",))
async def blab(context: ToolContext, *, said: str) -> dict[str, Any]:
    """Say it."""
    password = await context.secret("password")
    log.error("called with %s", told(password))
    (context.workspace / "decoy").write_text(os.environ.get("HANSA_TOOL_DECOY", ""))
    return {"said": said, "nested": [{told(password): told(password)}]}


@tool(effect="unsafe", secrets=("password",))
async def blab_failing(context: ToolContext, *, said: str) -> None:
    """Fail with it."""
    password = await context.secret("password")
    raise ToolFailed(f"{said}: {told(password)}", hint=told(password))


@tool(effect="unsafe", secrets=("password",))
async def blab_breaking(context: ToolContext, *, said: str) -> None:
    """Break with it."""
    raise LookupError(told(await context.secret("password")))


@tool(effect="unsafe")
async def blab_undeclared(context: ToolContext, *, said: str) -> str:
    """Ask for what it did not declare."""
    return await context.secret("password")


@hookimpl
def hansa_tools() -> list[Tool]:
    return [blab, blab_failing, blab_breaking, blab_undeclared]


@hookimpl
def hansa_llm_providers() -> list[ProviderKind]:
    return [ProviderKind("blabber", opened, requires_credential=True)]
