"""The `scripted` provider: what its scripts promise, and what it says without one."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from hansa_scripted.instance import smallest_instance
from hansa_scripted.plugin import hansa_llm_providers
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
from providers.calls import ask, complete, outage, refusal

pytestmark = pytest.mark.timeout(30)
(KIND,) = hansa_llm_providers()


@pytest.fixture
async def provider(services: ProviderServices) -> AsyncIterator[LLMProvider]:
    async with KIND.open(ProviderConfig("scripted"), services) as it:
        yield it


def script(*turns: dict[str, Any]) -> Message:
    return Message(Role.USER, f"Please follow this.\n#script {json.dumps(turns)}\nThank you.")


def request(*messages: Message, **fields: Any) -> LLMRequest:
    given: dict[str, Any] = {"model": "script", "timeout": 5.0, **fields}
    return LLMRequest(messages, **given)


async def test_it_echoes_the_last_user_text(provider: LLMProvider) -> None:
    conversation = (Message(Role.USER, "first"), Message(Role.ASSISTANT, "first"), Message(Role.USER, " Ahoy,  Lübeck\n!"))
    answer, pieces = await complete(provider, LLMRequest(conversation, model="echo"))
    assert pieces == [" Ahoy,  ", "Lübeck\n", "!"]
    assert answer == LLMResponse(" Ahoy,  Lübeck\n!", StopReason.END, "echo", usage=Usage(5, 3))


async def test_the_turn_follows_from_the_conversation_alone(provider: LLMProvider) -> None:
    start = script({"tool_calls": [{"name": "clock", "arguments": {"zone": "UTC"}}, {"name": "clock"}]}, {"text": "It is noon."})
    first, _ = await complete(provider, request(start))
    assert first.stop_reason is StopReason.TOOL_CALLS
    assert [(call.name, call.arguments) for call in first.tool_calls] == [("clock", {"zone": "UTC"}), ("clock", {})]
    assert len({call.id for call in first.tool_calls}) == 2
    assert (await complete(provider, request(start)))[0] == first
    results = [Message(Role.TOOL, "noon", tool_call_id=call.id) for call in first.tool_calls]
    second, _ = await complete(provider, request(start, Message(Role.ASSISTANT, tool_calls=first.tool_calls), *results))
    assert (second.text, second.stop_reason) == ("It is noon.", StopReason.END)


async def test_a_newer_script_replaces_an_older_one(provider: LLMProvider) -> None:
    conversation = (script({"text": "old"}), Message(Role.ASSISTANT, "old"), script({"text": "new"}), Message(Role.SYSTEM, "#script []"))
    assert (await complete(provider, request(*conversation)))[0].text == "new"


async def test_a_script_goes_on_behind_later_messages_without_one(provider: LLMProvider) -> None:
    conversation = (script({"text": "one"}, {"text": "two"}), Message(Role.ASSISTANT, "one"), Message(Role.USER, "and then?"))
    assert (await complete(provider, request(*conversation)))[0].text == "two"


async def test_malformed_arguments_can_be_scripted(provider: LLMProvider) -> None:
    answer, _ = await complete(provider, request(script({"tool_calls": [{"name": "clock", "malformed": "{oops"}]})))
    assert answer.tool_calls == (ToolCall("call_1_0", "clock", {}, "{oops"),)


async def test_errors_come_as_often_as_they_say_and_again_in_the_next_run(provider: LLMProvider) -> None:
    asked = request(script({"error": "unavailable", "times": 2}, {"error": "refused", "times": 1, "text": "at last"}))
    for _ in range(2):
        assert (await outage(provider, asked)).status == 503
        assert (await outage(provider, asked)).status == 503
        assert (await refusal(provider, asked)).status == 400
        assert (await complete(provider, asked))[0].text == "at last"


async def test_an_error_without_a_number_never_ends(provider: LLMProvider) -> None:
    asked = request(script({"error": "unavailable"}, {"text": "never"}))
    for _ in range(5):
        await outage(provider, asked)


async def test_conversations_count_their_errors_apart(provider: LLMProvider) -> None:
    start = script({"error": "unavailable", "times": 1, "text": "well"})
    other = (Message(Role.USER, "another"), start)
    await outage(provider, request(start))
    await outage(provider, request(*other))
    assert [(await complete(provider, asked))[0].text for asked in (request(start), request(*other))] == ["well", "well"]


async def test_a_hanging_turn_ends_with_the_time_of_the_call(provider: LLMProvider) -> None:
    before = time.monotonic()
    fault = await outage(provider, request(script({"error": "hang", "text": "late"}), timeout=0.2))
    assert "within 0.2 s" in fault.detail
    assert 0.2 <= time.monotonic() - before < 2


async def test_a_hanging_turn_can_be_cancelled(provider: LLMProvider) -> None:
    call = asyncio.create_task(provider.complete(request(script({"error": "hang"})), lambda piece: None))
    await asyncio.sleep(0.05)
    assert not call.done()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_the_delay_is_spread_over_the_pieces(provider: LLMProvider) -> None:
    at: list[float] = []
    before = time.monotonic()
    await provider.complete(
        request(script({"text": "abcdefgh", "delay": 0.4, "chunks": 4})), lambda piece: at.append(time.monotonic() - before)
    )
    assert len(at) == 4
    assert [moment >= 0.1 * number for number, moment in enumerate(at, 1)] == [True] * 4
    assert at[3] - at[0] >= 0.25


@pytest.mark.parametrize("chunks", [1, 2, 3, 7, 100])
async def test_pieces_make_up_the_text(provider: LLMProvider, chunks: int) -> None:
    answer, pieces = await complete(provider, request(script({"text": "Grüße an alle", "chunks": chunks})))
    assert "".join(pieces) == answer.text == "Grüße an alle"
    assert len(pieces) <= chunks


async def test_an_answer_obeys_max_tokens(provider: LLMProvider) -> None:
    answer, pieces = await complete(provider, ask("one two three", max_tokens=2))
    assert (answer.text, answer.stop_reason) == ("one two ", StopReason.MAX_TOKENS)
    assert "".join(pieces) == answer.text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("#script [", "can't be read"),
        ('#script {"text": "x"}', "can't be read"),
        ('#script [{"txt": "x"}]', "txt"),
        ('#script [{"error": "explode"}]', "explode"),
        ("#script []", "0 turns"),
    ],
)
async def test_a_script_that_makes_no_sense_is_refused(provider: LLMProvider, line: str, said: str) -> None:
    assert said in (await refusal(provider, ask(line))).detail


async def test_a_turn_beyond_the_script_is_refused(provider: LLMProvider) -> None:
    fault = await refusal(provider, request(script({"text": "one"}), Message(Role.ASSISTANT, "one")))
    assert fault.detail == "the script has 1 turns, and turn 2 was asked for"


async def test_a_schema_gets_an_instance_as_its_answer(provider: LLMProvider) -> None:
    schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}
    answer, pieces = await complete(provider, ask(output_schema=schema))
    assert json.loads(answer.text) == {"mood": "good"}
    assert "".join(pieces) == answer.text


async def test_a_script_is_stronger_than_the_schema(provider: LLMProvider) -> None:
    answer, _ = await complete(provider, request(script({"text": "not JSON"}), output_schema={"type": "null"}))
    assert answer.text == "not JSON"


class Review(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    stars: int
    tags: list[str]
    reply: "Review | None" = None


@pytest.mark.parametrize(
    ("schema", "instance"),
    [
        ({}, None),
        ({"type": "string", "minLength": 3}, "xxx"),
        ({"type": "string", "format": "date-time"}, "1970-01-01T00:00:00Z"),
        ({"type": "integer", "minimum": 3, "multipleOf": 5}, 5),
        ({"type": "integer", "maximum": -2}, -2),
        ({"type": "integer", "exclusiveMinimum": 0}, 1),
        ({"type": "number", "exclusiveMaximum": 0}, -1e-9),
        ({"type": "number", "minimum": 0.5}, 0.5),
        ({"type": ["string", "null"]}, None),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [False, False]),
        ({"type": "array", "prefixItems": [{"const": 1}], "items": {"const": 2}, "minItems": 2}, [1, 2]),
        ({"anyOf": [{"type": "string", "minLength": 9}, {"type": "integer"}]}, 0),
        (
            {"type": "object", "required": ["x"], "oneOf": [{"properties": {"x": {"const": 1}}}, {"properties": {"x": {"const": 22}}}]},
            {"x": 1},
        ),
        ({"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"required": ["b"]}]}, {"a": 1, "b": None}),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"enum": [7, 8]}}}, 7),
        (msgspec.json.schema(Review), {"title": "", "stars": 0, "tags": []}),
    ],
)
def test_the_smallest_instance_obeys_its_schema(schema: dict[str, Any], instance: Any) -> None:
    assert smallest_instance(schema) == instance
    jsonschema_rs.validate(schema, instance)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"$ref": "#/$defs/nowhere"},
    ],
)
def test_a_schema_without_a_finite_instance_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ProviderRefused, match="the output schema"):
        smallest_instance(schema)
