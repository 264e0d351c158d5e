"""Registers the provider kind `anthropic`. Must not import the vendor SDK, which takes seconds."""

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hansa_sdk import LLMProvider, ProviderConfig, ProviderKind, ProviderServices, hookimpl

HANSA_API_VERSION = 1


@asynccontextmanager
async def connect(config: ProviderConfig, services: ProviderServices) -> AsyncIterator[LLMProvider]:
    """Open the provider. Raises `ProviderRefused` when the configuration can't work."""
    # By name and in a thread: importing the vendor SDK takes seconds, which neither a start without Claude nor the event loop
    # of one with it should pay.
    provider = await asyncio.to_thread(importlib.import_module, "hansa_anthropic.provider")
    async with provider.connect(config, services) as opened:
        yield opened


@hookimpl
def hansa_llm_providers() -> list[ProviderKind]:
    return [ProviderKind(name="anthropic", open=connect, requires_credential=True)]
