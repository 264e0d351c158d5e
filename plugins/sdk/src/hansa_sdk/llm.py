"""One request and response type for every LLM provider, and what a provider plugin implements.

Text is `str`, JSON is plain Python data, times are seconds, token counts are those the provider reported (0: unknown).
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import httpx2
import msgspec


class Role(StrEnum):
    """Who speaks in a conversation."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class StopReason(StrEnum):
    """Why the model stopped."""

    END = "end"
    TOOL_CALLS = "tool_calls"
    MAX_TOKENS = "max_tokens"
    REFUSAL = "refusal"


class ToolCall(msgspec.Struct, frozen=True):
    """One call the model asks for.

    `arguments` is the decoded JSON object; when the model wrote something that is not a JSON object, `arguments` is
    empty and `malformed` holds its text, so that the model can be told what was wrong.
    """

    id: str
    name: str
    arguments: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    malformed: str | None = None


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message. `tool_calls` only with role assistant; `tool_call_id` and `is_error` only with role tool."""

    role: Role
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    is_error: bool = False


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool as the model sees it: `parameters` is a JSON Schema (draft 2020-12) of type object."""

    name: str
    description: str
    parameters: dict[str, Any]


class LLMRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is asked of a model.

    `model` is the model's name at the provider (the gateway has resolved aliases), or empty in a runtime: the agent's own.
    `output_schema` is a JSON Schema the answer must obey; a provider that can constrain decoding does so.
    `max_tokens` bounds the answer; `timeout` bounds the whole call in seconds.
    """

    messages: tuple[Message, ...]
    model: str = ""
    tools: tuple[ToolSpec, ...] = ()
    output_schema: dict[str, Any] | None = None
    max_tokens: int = 1024
    temperature: float | None = None
    timeout: float = 120.0


class Usage(msgspec.Struct, frozen=True):
    """Tokens as the provider counted them."""

    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


class LLMResponse(msgspec.Struct, frozen=True):
    """What the model answered. `model` is the name the provider reported."""

    text: str
    stop_reason: StopReason
    model: str
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage()


class Completion(msgspec.Struct, frozen=True):
    """A response and where it came from: `provider` is the ModelProvider's name, `attempts` counts all tries.

    `cost` is what its tokens cost by the model's prices, in millionths of the prices' currency.
    """

    response: LLMResponse
    provider: str
    attempts: int
    cost: int = 0


TextSink = Callable[[str], None]
"""Takes each piece of text as it streams in. Must not block; pieces joined equal the response's text."""


class ProviderConfig(msgspec.Struct, frozen=True):
    """How one ModelProvider object is set up. `credential` is the resolved secret, or None where none is configured."""

    name: str
    endpoint: str | None = None
    credential: str | None = None
    models: tuple[str, ...] = ()


class ProviderServices(msgspec.Struct, frozen=True):
    """What core lends a provider: `http` is the one egress client (never make your own), `data_dir` a folder for caches."""

    http: httpx2.AsyncClient
    data_dir: Path


class LLMProvider(Protocol):
    """An open connection to a provider; one per ModelProvider object, shared by all runs of a process."""

    async def complete(self, request: LLMRequest, on_text: TextSink) -> LLMResponse:
        """Answer, calling `on_text` as text arrives.

        Raises `ProviderUnavailable` (worth a retry) or `ProviderRefused` (not). Cancelling the task must end the call.
        """
        ...


class ProviderKind(msgspec.Struct, frozen=True):
    """A kind of provider, registered under `name` (the `plugin` of a ModelProvider).

    `open(config, services)` gives the provider as an async context manager. `requires_credential` makes a ModelProvider
    without a credential unusable with a clear reason, so that an agent's fallback is taken at once.
    """

    name: str
    open: Callable[[ProviderConfig, ProviderServices], AbstractAsyncContextManager[LLMProvider]]
    requires_credential: bool = False
    requires_endpoint: bool = False
    max_concurrency: int = 0
    """Calls at once per process that make sense for this kind (0: no bound), e.g. 1 for a model on this machine's CPU."""
