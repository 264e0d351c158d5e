"""Registers the provider kind `local`. Must not import llama.cpp, which only a first question loads."""

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from hansa_local.engine import SLOTS, Engine
from hansa_local.weights import locate
from hansa_sdk import LLMProvider, ProviderConfig, ProviderKind, ProviderServices, hookimpl

HANSA_API_VERSION = 1


@asynccontextmanager
async def connect(engine: Engine, config: ProviderConfig, services: ProviderServices) -> AsyncIterator[LLMProvider]:
    """Open the provider. Raises `ProviderRefused` when the configuration can't work or the weights are missing."""
    # By name: a start with hundreds of plugins must not pay for those that nobody opens.
    provider = importlib.import_module("hansa_local.provider")
    async with provider.connect(engine, config, services) as opened:
        yield opened


@hookimpl
def hansa_llm_providers() -> list[ProviderKind]:
    # One engine for every ModelProvider of the process: the weights are in memory once, however many ask.
    return [ProviderKind(name="local", open=partial(connect, Engine(locate)), max_concurrency=SLOTS)]
