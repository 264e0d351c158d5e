"""How the tests of provider plugins call them."""

from typing import Any

import pytest

from hansa_sdk import LLMProvider, LLMRequest, LLMResponse, Message, ProviderRefused, ProviderUnavailable, Role, ToolSpec

KEY = "test-key-of-the-double"
WEATHER = ToolSpec("weather", "The weather in a city.", {"type": "object", "properties": {"city": {"type": "string"}}})


def ask(text: str = "one two three", **fields: Any) -> LLMRequest:
    given: dict[str, Any] = {"model": "m", "timeout": 10.0, **fields}
    return LLMRequest((Message(Role.USER, text),), **given)


async def complete(provider: LLMProvider, request: LLMRequest) -> tuple[LLMResponse, list[str]]:
    """The answer, and the pieces its text came in."""
    pieces: list[str] = []
    return await provider.complete(request, pieces.append), pieces


async def refusal(provider: LLMProvider, request: LLMRequest | None = None) -> ProviderRefused:
    with pytest.raises(ProviderRefused) as caught:
        await provider.complete(request or ask(), lambda piece: None)
    return caught.value


async def outage(provider: LLMProvider, request: LLMRequest | None = None) -> ProviderUnavailable:
    with pytest.raises(ProviderUnavailable) as caught:
        await provider.complete(request or ask(), lambda piece: None)
    return caught.value
