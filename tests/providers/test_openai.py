"""The `openai` provider against a server that speaks chat completions as OpenAI does, and as others do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from doubles.llm_upstream import Kind, LLMUpstream, Scenario
from doubles.llm_wire import INPUT_TOKENS
from hansa_openai.plugin import hansa_llm_providers
from hansa_openai.request import allows_strict
from hansa_openai.sse import EventDecoder
from hansa_sdk import (
    LLMProvider,
    LLMRequest,
    LLMResponse,
    Message,
    ProviderConfig,
    ProviderRefused,
    ProviderServices,
    Role,
    StopReason,
    ToolCall,
    Usage,
)
from providers.calls import KEY, WEATHER, ask, complete, outage, refusal

pytestmark = pytest.mark.timeout(30)
(KIND,) = hansa_llm_providers()


@pytest.fixture
async def provider(upstream: LLMUpstream, services: ProviderServices) -> AsyncIterator[LLMProvider]:
    async with opened(services, upstream.url + "/v1") as it:
        yield it


@asynccontextmanager
async def opened(services: ProviderServices, endpoint: str | None, credential: str | None = KEY) -> AsyncIterator[LLMProvider]:
    async with KIND.open(ProviderConfig("local", endpoint=endpoint, credential=credential), services) as it:
        yield it


# -- answers


async def test_text_streams_in_pieces_that_make_up_the_answer(provider: LLMProvider) -> None:
    answer, pieces = await complete(provider, ask("Grüße aus Lübeck, 船長 🚢"))
    assert pieces == ["Grüße ", "aus ", "Lübeck, ", "船長 ", "🚢"]
    assert answer == LLMResponse("Grüße aus Lübeck, 船長 🚢", StopReason.END, "m-2026", usage=Usage(INPUT_TOKENS, 5))


async def test_text_arrives_before_the_answer_is_over(provider: LLMProvider, upstream: LLMUpstream) -> None:
    upstream.then(Scenario(pace=0.1))
    first = asyncio.Event()
    call = asyncio.create_task(provider.complete(ask("one two three four five six"), lambda piece: first.set()))
    await first.wait()
    assert not upstream.requests[0].finished.is_set()
    assert (await call).text == "one two three four five six"


async def test_the_request_is_what_the_protocol_asks_for(provider: LLMProvider, upstream: LLMUpstream) -> None:
    call = ToolCall("c1", "weather", {"city": "Lübeck"})
    conversation = (
        Message(Role.SYSTEM, "Be brief."),
        Message(Role.USER, "Weather?"),
        Message(Role.ASSISTANT, "Let me see.", tool_calls=(call, ToolCall("c2", "weather", malformed="{oops"))),
        Message(Role.TOOL, "rain", tool_call_id="c1"),
        Message(Role.TOOL, "arguments are not JSON", tool_call_id="c2", is_error=True),
    )
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
    await complete(provider, LLMRequest(conversation, "m", (WEATHER,), schema, max_tokens=77, temperature=0.0, timeout=10))
    sent = upstream.requests[0]
    assert (sent.method, sent.path) == ("POST", "/v1/chat/completions")
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.headers["content-type"] == "application/json"
    function = {"name": "weather", "description": "The weather in a city.", "parameters": WEATHER.parameters}
    assert sent.json == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 77,
        "temperature": 0.0,
        "tools": [{"type": "function", "function": function}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "output", "schema": schema, "strict": True}},
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Lübeck"}'}},
                    {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "content": "rain", "tool_call_id": "c1"},
            {"role": "tool", "content": "arguments are not JSON", "tool_call_id": "c2"},
        ],
    }


async def test_an_unset_option_is_not_sent(provider: LLMProvider, upstream: LLMUpstream) -> None:
    await complete(provider, ask())
    assert set(upstream.requests[0].json) == {"model", "messages", "stream", "stream_options", "max_tokens"}


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}, True),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}, False),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "required": [], "additionalProperties": False}, False),
        ({"type": "array", "items": {"type": "object"}}, False),
        ({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/A"}], "$defs": {"A": {"type": "object", "properties": {"x": {}}}}}, False),
        ({"type": "array", "items": {"anyOf": [{"type": "null"}, {"type": "integer"}]}}, True),
        ({"oneOf": [{"type": "null"}]}, False),
    ],
)
def test_strict_decoding_is_asked_for_only_where_the_schema_allows_it(schema: dict[str, Any], *, strict: bool) -> None:
    assert allows_strict(schema) is strict


async def test_tool_calls_are_put_together_from_their_pieces(provider: LLMProvider, upstream: LLMUpstream) -> None:
    upstream.then(Scenario(Kind.TWO_TOOL_CALLS, text="I look."))
    answer, pieces = await complete(provider, ask(tools=(WEATHER,)))
    assert answer.stop_reason is StopReason.TOOL_CALLS
    assert answer.text == "".join(pieces) == "I look."
    assert answer.tool_calls == (
        ToolCall("call_0_double", "weather", {"city": "Lübeck"}),
        ToolCall("call_1_double", "weather", {"city": "Lübeck"}),
    )


async def test_whole_tool_calls_without_index_and_id_get_ids(provider: LLMProvider, upstream: LLMUpstream) -> None:
    upstream.then(Kind.WHOLE_CALLS)
    answer, _ = await complete(provider, ask(tools=(WEATHER,)))
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("weather", {"city": "Lübeck"})] * 2
    ids = {call.id for call in answer.tool_calls}
    assert len(ids) == 2
    assert "" not in ids
    assert answer.stop_reason is StopReason.TOOL_CALLS


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
    answer, pieces = await complete(provider, ask("some words", model=kind.value))
    assert answer.stop_reason is reason
    assert answer.text == "".join(pieces) == "some words"


@pytest.mark.parametrize("kind", [Kind.ODD_FRAMING, Kind.SPLIT, Kind.WRONG_TYPE, Kind.NOT_STREAMED])
async def test_unusual_framing_gives_the_same_answer(provider: LLMProvider, upstream: LLMUpstream, kind: Kind) -> None:
    upstream.then(kind)
    answer, pieces = await complete(provider, ask("Grüße, 船長 🚢"))
    assert answer == LLMResponse("Grüße, 船長 🚢", StopReason.END, "m-2026", usage=Usage(INPUT_TOKENS, 3))
    assert "".join(pieces) == answer.text


def test_events_are_the_same_however_their_bytes_are_cut() -> None:
    stream = b"\xef\xbb\xbfdata: \xc3\xbc\r\ndata:b\r\n\r\n: c\n\nevent: x\ndata\n\ndata:  d\r\rdata: cut"
    for size in range(1, len(stream) + 1):
        decoder = EventDecoder()
        events = [data for start in range(0, len(stream), size) for data in decoder.feed(stream[start : start + size])]
        assert events == [b"\xc3\xbc\nb", b"", b" d"], size


# -- configuration


async def test_a_local_server_needs_no_key(upstream: LLMUpstream, services: ProviderServices) -> None:
    async with opened(services, upstream.url + "/v1/", credential=None) as provider:
        await complete(provider, ask())
    assert upstream.requests[0].path == "/v1/chat/completions"
    assert "authorization" not in upstream.requests[0].headers


async def test_an_endpoint_may_be_written_to_its_end(upstream: LLMUpstream, services: ProviderServices) -> None:
    async with opened(services, upstream.url + "/v1/chat/completions") as provider:
        await complete(provider, ask())
    assert upstream.requests[0].path == "/v1/chat/completions"


async def test_a_wrong_path_says_how_an_endpoint_ends(upstream: LLMUpstream, services: ProviderServices) -> None:
    async with opened(services, upstream.url + "/v1/models") as provider:
        upstream.then(Scenario(Kind.STATUS, status=404))
        assert "must end where /chat/completions begins" in (await refusal(provider)).hint


@pytest.mark.parametrize("endpoint", [None, "localhost:11434/v1", "ftp://localhost/v1", "http://", "http://[::1/v1"])
async def test_an_endpoint_that_is_none_is_refused_at_once(services: ProviderServices, endpoint: str | None) -> None:
    with pytest.raises(ProviderRefused, match="provider 'local'"):
        async with opened(services, endpoint, credential=None):
            pass


async def test_errors_are_readable_in_every_form(provider: LLMProvider, upstream: LLMUpstream) -> None:
    upstream.then(Scenario(Kind.PLAIN_ERROR, said="upstream\n  connect error"))
    assert (await outage(provider)).detail == "provider 'local' answered 503: upstream connect error"
    upstream.then(Scenario(Kind.PLAIN_ERROR, said='{"error": "model is loading"}'))
    assert (await outage(provider)).detail == "provider 'local' answered 503: model is loading"
    upstream.then(Scenario(Kind.PLAIN_ERROR, said="[1, 2]"))
    assert (await outage(provider)).detail == "provider 'local' answered 503: [1,2]"
    upstream.then(Scenario(Kind.PLAIN_ERROR, said='{"detail": [{"msg": "too long"}]}'))
    assert (await outage(provider)).detail == 'provider \'local\' answered 503: [{"msg":"too long"}]'
    upstream.then(Scenario(Kind.PLAIN_ERROR, said="no " * 1000))
    assert len((await outage(provider)).detail) < 400


async def test_an_error_inside_a_stream_keeps_its_words(provider: LLMProvider, upstream: LLMUpstream) -> None:
    upstream.then(Kind.STREAM_ERROR)
    fault = await outage(provider)
    assert (fault.status, fault.detail) == (500, "provider 'local' broke its answer off: the engine died")


async def test_the_vendors_own_client_understands_the_double(upstream: LLMUpstream) -> None:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=upstream.url + "/v1", max_retries=0) as client:
        upstream.then(Scenario(Kind.TWO_TOOL_CALLS, text="I look."))
        chunks = await client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "Weather?"}],
            tools=[{"type": "function", "function": {"name": "weather", "parameters": WEATHER.parameters}}],
            stream=True,
            stream_options={"include_usage": True},
        )
        text, arguments, tokens = "", {0: "", 1: ""}, 0
        async for chunk in chunks:
            tokens = chunk.usage.prompt_tokens if chunk.usage else tokens
            for choice in chunk.choices:
                text += choice.delta.content or ""
                for call in choice.delta.tool_calls or ():
                    arguments[call.index] += (call.function and call.function.arguments) or ""
        assert (text, arguments, tokens) == ("I look.", {0: '{"city": "Lübeck"}', 1: '{"city": "Lübeck"}'}, INPUT_TOKENS)
        whole = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello"}])
        assert whole.choices[0].message.content == "Hello"
        upstream.fail_times(1, Scenario(Kind.STATUS, status=429, retry_after="3"))
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello"}])
        assert caught.value.response.headers["retry-after"] == "3"
