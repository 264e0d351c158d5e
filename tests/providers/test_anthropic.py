"""The `anthropic` provider, through the vendor's own SDK, against a server that speaks the Messages API."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from doubles.llm_upstream import Kind, LLMUpstream, Scenario
from doubles.llm_wire import INPUT_TOKENS
from hansa_anthropic.answer import Answer, AnswerBroken, Block, Delta, Event, Started
from hansa_anthropic.conversation import output_config
from hansa_anthropic.faults import stream_fault
from hansa_anthropic.plugin import hansa_llm_providers
from hansa_sdk import (
    LLMProvider,
    LLMRequest,
    LLMResponse,
    Message,
    ProviderConfig,
    ProviderRefused,
    ProviderServices,
    ProviderUnavailable,
    Role,
    StopReason,
    ToolCall,
    Usage,
)
from providers.calls import KEY, WEATHER, ask, complete, outage, refusal

pytestmark = pytest.mark.timeout(30)
(KIND,) = hansa_llm_providers()


@asynccontextmanager
async def opened(services: ProviderServices, endpoint: str | None, credential: str | None = KEY) -> AsyncIterator[LLMProvider]:
    async with KIND.open(ProviderConfig("claude", endpoint=endpoint, credential=credential), services) as it:
        yield it


@pytest.fixture
async def provider(upstream: LLMUpstream, services: ProviderServices) -> AsyncIterator[LLMProvider]:
    async with opened(services, upstream.url) as it:
        yield it


# -- answers


@pytest.mark.parametrize("kind", [Kind.OK, Kind.SPLIT, Kind.WRONG_TYPE])
async def test_text_streams_in_pieces_that_make_up_the_answer(provider: LLMProvider, upstream: LLMUpstream, kind: Kind) -> None:
    upstream.then(kind)
    answer, pieces = await complete(provider, ask("Grüße aus Lübeck, 船長 🚢"))
    assert pieces == ["Grüße ", "aus ", "Lübeck, ", "船長 ", "🚢"]
    assert (answer.text, answer.stop_reason, answer.model) == ("Grüße aus Lübeck, 船長 🚢", StopReason.END, "m-2026")


async def test_cached_tokens_count_as_input(provider: LLMProvider) -> None:
    answer, _ = await complete(provider, ask("one two three"))
    assert answer.usage == Usage(INPUT_TOKENS, 3)


async def test_text_arrives_before_the_answer_is_over(provider: LLMProvider, upstream: LLMUpstream) -> None:
    upstream.then(Scenario(pace=0.1))
    finished: list[bool] = []
    await provider.complete(ask("one two three"), lambda piece: finished.append(upstream.requests[0].finished.is_set()))
    assert finished == [False, False, False]


async def test_the_request_is_what_the_api_asks_for(provider: LLMProvider, upstream: LLMUpstream) -> None:
    calls = (ToolCall("t1", "weather", {"city": "Lübeck"}), ToolCall("t2", "weather", malformed="{oops"))
    conversation = (
        Message(Role.SYSTEM, "Be brief."),
        Message(Role.USER, "Weather?"),
        Message(Role.ASSISTANT, "", tool_calls=calls),
        Message(Role.TOOL, "rain", tool_call_id="t1"),
        Message(Role.TOOL, "not JSON", tool_call_id="t2", is_error=True),
        Message(Role.USER, "And?"),
        Message(Role.SYSTEM, "Speak plainly."),
    )
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}, "required": ["a"]}
    await complete(provider, LLMRequest(conversation, "m", (WEATHER,), schema, max_tokens=77, timeout=10))
    sent = upstream.requests[0]
    assert (sent.method, sent.path) == ("POST", "/v1/messages")
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.headers["anthropic-version"] == "2026-10-21"
    assert sent.headers["accept-encoding"] == "identity"
    constrained = {"type": "integer", "description": "{minimum: 0}"}
    assert sent.json == {
        "model": "m",
        "max_tokens": 77,
        "stream": True,
        "system": "Be brief.\n\nSpeak plainly.",
        "tools": [{"name": "weather", "description": "The weather in a city.", "input_schema": WEATHER.parameters}],
        "output_config": {
            "format": {
                "type": "json_schema",
                "schema": {"type": "object", "properties": {"a": constrained}, "required": ["a"], "additionalProperties": False},
            }
        },
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Lübeck"}},
                    {"type": "tool_use", "id": "t2", "name": "weather", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "rain"},
                    {"type": "tool_result", "tool_use_id": "t2", "content": "not JSON", "is_error": True},
                    {"type": "text", "text": "And?"},
                ],
            },
        ],
    }


async def test_an_unset_option_is_not_sent(provider: LLMProvider, upstream: LLMUpstream) -> None:
    await complete(provider, ask(temperature=1.0))
    assert set(upstream.requests[0].json) == {"model", "messages", "stream", "max_tokens"}


async def test_a_temperature_the_api_does_not_have_is_refused_unsent(provider: LLMProvider, upstream: LLMUpstream) -> None:
    fault = await refusal(provider, ask(temperature=0.0))
    assert "temperature 0" in fault.detail
    assert upstream.requests == []


@pytest.mark.parametrize("text", ["", " \n"])
async def test_a_conversation_without_text_is_refused_unsent(provider: LLMProvider, upstream: LLMUpstream, text: str) -> None:
    assert "no text" in (await refusal(provider, ask(text))).detail
    assert upstream.requests == []


@pytest.mark.parametrize("schema", [{}, {"type": ["string", "null"]}, {"type": "object", "properties": {"a": True}}])
async def test_a_schema_outside_the_apis_subset_is_told_in_words(
    provider: LLMProvider, upstream: LLMUpstream, schema: dict[str, Any]
) -> None:
    assert output_config(schema) is None
    await complete(provider, ask(output_schema=schema))
    sent = upstream.requests[0].json
    assert "output_config" not in sent
    assert "JSON Schema" in sent["system"]


async def test_tool_calls_are_put_together_from_their_pieces(provider: LLMProvider, upstream: LLMUpstream) -> None:
    upstream.then(Scenario(Kind.TWO_TOOL_CALLS, text="I look."))
    answer, pieces = await complete(provider, ask(tools=(WEATHER,)))
    assert answer.stop_reason is StopReason.TOOL_CALLS
    assert answer.text == "".join(pieces) == "I look."
    assert answer.tool_calls == (
        ToolCall("call_0_double", "weather", {"city": "Lübeck"}),
        ToolCall("call_1_double", "weather", {"city": "Lübeck"}),
    )


@pytest.mark.parametrize("arguments", ['{"city": "Lü', "[1]", "null", "nonsense", "[" * 5000])
async def test_arguments_that_are_no_object_are_kept_as_they_are(provider: LLMProvider, upstream: LLMUpstream, arguments: str) -> None:
    upstream.then(Scenario(Kind.TOOL_CALL, arguments=arguments))
    answer, _ = await complete(provider, ask(tools=(WEATHER,)))
    assert answer.tool_calls == (ToolCall("call_0_double", "weather", {}, arguments),)


async def test_a_call_without_arguments_has_none(provider: LLMProvider, upstream: LLMUpstream) -> None:
    upstream.then(Scenario(Kind.TOOL_CALL, arguments=""))
    answer, _ = await complete(provider, ask(tools=(WEATHER,)))
    assert answer.tool_calls == (ToolCall("call_0_double", "weather", {}),)


@pytest.mark.parametrize(("kind", "reason"), [(Kind.MAX_TOKENS, StopReason.MAX_TOKENS), (Kind.REFUSAL, StopReason.REFUSAL)])
async def test_the_reason_for_stopping_is_told(provider: LLMProvider, kind: Kind, reason: StopReason) -> None:
    answer, _ = await complete(provider, ask("some words", model=kind.value))
    assert (answer.text, answer.stop_reason) == ("some words", reason)


def test_events_of_no_use_are_left_alone() -> None:
    pieces: list[str] = []
    answer = Answer(limit=1000, on_text=pieces.append)
    thinking = (
        Event("content_block_start", 0, content_block=Block("thinking")),
        Event("content_block_delta", 0, delta=Delta("thinking_delta")),
    )
    events = (
        Event("message_start", message=Started("m")),
        *thinking,
        Event("content_block_delta", 0, delta=Delta("a_delta_of_tomorrow")),
        Event("an_event_of_tomorrow"),
        Event("content_block_start", 1, content_block=Block("text", text="Hel")),
        Event("content_block_delta", 1, delta=Delta("text_delta", text="lo")),
        Event("message_delta", delta=Delta(stop_reason="a_reason_of_tomorrow")),
    )
    assert [answer.add(event) for event in events] == [None] * len(events)
    assert answer.add(Event("message_stop")) == LLMResponse("Hello", StopReason.END, "m")
    assert pieces == ["Hel", "lo"]


@pytest.mark.parametrize("event", [Event("message_start"), Event("content_block_delta"), Event("message_delta"), Event("message_stop")])
def test_an_event_without_its_content_breaks_the_answer(event: Event) -> None:
    with pytest.raises(AnswerBroken):
        Answer(limit=1000, on_text=lambda piece: None).add(event)


# -- faults of this API


async def test_an_overload_inside_a_stream_is_an_outage(provider: LLMProvider, upstream: LLMUpstream) -> None:
    upstream.then(Kind.STREAM_ERROR)
    fault = await outage(provider)
    assert (fault.status, fault.detail) == (529, "provider 'claude' answered 529: Overloaded")


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("invalid_request_error", ProviderRefused),
        ("authentication_error", ProviderRefused),
        ("not_found_error", ProviderRefused),
        ("rate_limit_error", ProviderUnavailable),
        ("api_error", ProviderUnavailable),
        ("an_error_of_tomorrow", ProviderUnavailable),
    ],
)
def test_an_error_inside_a_stream_is_told_by_its_type(kind: str, error: type[Exception]) -> None:
    assert type(stream_fault(ProviderConfig("claude"), "m", kind=kind, said="so")) is error


# -- configuration


async def test_nothing_is_read_from_the_environment(
    upstream: LLMUpstream, services: ProviderServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "from-the-environment")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "from-the-environment")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9/from-the-environment")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "Authorization: Bearer from-the-environment\nX-Extra: from-the-environment")
    async with opened(services, upstream.url) as provider:
        await complete(provider, ask())
    sent = upstream.requests[0]
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert "from-the-environment" not in str(sent.headers)
    with pytest.raises(ProviderRefused, match="no credential"):
        async with opened(services, upstream.url, credential=None):
            pass


class Elsewhere(httpx2.AsyncBaseTransport):
    """Keeps the addresses that are asked for, and reaches none of them."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(str(request.url))
        raise httpx2.ConnectError("out of reach")


async def test_without_an_endpoint_the_vendors_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9/from-the-environment")
    transport = Elsewhere()
    async with httpx2.AsyncClient(transport=transport) as http, opened(ProviderServices(http, tmp_path), None) as provider:
        assert "out of reach" in (await outage(provider)).detail
    assert transport.asked == ["https://api.anthropic.com/v1/messages"]


@pytest.mark.parametrize("path", ["", "/", "/v1", "/gateway/", "/gateway/v1"])
async def test_an_endpoint_may_hold_a_path_and_the_version(upstream: LLMUpstream, services: ProviderServices, path: str) -> None:
    async with opened(services, upstream.url + path) as provider:
        await complete(provider, ask())
    assert upstream.requests[0].path == ("/gateway" if "gateway" in path else "") + "/v1/messages"


@pytest.mark.parametrize("endpoint", ["localhost:8080", "ftp://localhost", "http://", "http://[::1"])
async def test_an_endpoint_that_is_none_is_refused_at_once(services: ProviderServices, endpoint: str) -> None:
    with pytest.raises(ProviderRefused, match="provider 'claude'"):
        async with opened(services, endpoint):
            pass


def test_registering_does_not_import_the_vendors_sdk() -> None:
    program = "import sys, hansa_anthropic.plugin as p; p.hansa_llm_providers(); sys.exit('anthropic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=20).returncode == 0


def test_a_credential_is_demanded() -> None:
    assert (KIND.name, KIND.requires_credential, KIND.requires_endpoint) == ("anthropic", True, False)


async def test_the_vendors_own_client_understands_the_double(upstream: LLMUpstream) -> None:
    async with anthropic.AsyncAnthropic(api_key=KEY, base_url=upstream.url, max_retries=0) as client:
        upstream.then(Scenario(Kind.TWO_TOOL_CALLS, text="I look."))
        tools: list[anthropic.types.ToolParam] = [{"name": "weather", "input_schema": {"type": "object"}}]
        question: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Weather?"}]
        async with client.messages.stream(model="m", max_tokens=9, messages=question, tools=tools) as stream:
            answer = await stream.get_final_message()
        assert [block.to_dict().get("input", block.to_dict().get("text")) for block in answer.content] == [
            "I look.",
            {"city": "Lübeck"},
            {"city": "Lübeck"},
        ]
        assert (answer.stop_reason, answer.usage.cache_read_input_tokens, answer.usage.output_tokens) == ("tool_use", 5, 4)
        whole = await client.messages.create(model="m", max_tokens=9, messages=question)
        assert whole.to_dict()["content"] == [{"type": "text", "text": "Weather?"}]
        upstream.fail_times(1)
        with pytest.raises(anthropic.OverloadedError):
            await client.messages.create(model="m", max_tokens=9, messages=question)
