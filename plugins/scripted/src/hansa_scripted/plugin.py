"""Registers the provider kind `scripted`; the provider itself is imported when one is opened."""

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hansa_sdk import LLMProvider, ProviderConfig, ProviderKind, ProviderServices, hookimpl

HANSA_API_VERSION = 1


@asynccontextmanager
async def connect(config: ProviderConfig, services: ProviderServices) -> AsyncIterator[LLMProvider]:
    """Open the provider. Raises `ProviderRefused` when the configuration can't work."""
    # By name: a start with hundreds of plugins must not pay for those that nobody opens.
    provider = importlib.import_module("hansa_scripted.provider")
    async with provider.connect(config, services) as opened:
        yield opened


@hookimpl
def hansa_llm_providers() -> list[ProviderKind]:
    return [ProviderKind(name="scripted", open=connect)]
