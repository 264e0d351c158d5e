"""What the `local` provider asks a grammar for, and what it makes of what comes back: pure functions, no model."""

import json
from typing import Any

import pytest

from hansa_local.answer import Plain, Reader, ToolOrAnswer
from hansa_local.constraint import Constraint, obeying
from hansa_local.conversation import constraint_of, question_of
from hansa_local.schema import choices, loosened
from hansa_sdk import LLMRequest, Message, Role, ToolCall, ToolSpec
from providers.calls import WEATHER

pytestmark = pytest.mark.timeout(30)
CLOCK = ToolSpec("clock", "Tell the time. In any zone.", {"type": "object", "properties": {}})


def conversation(*messages: Message, **fields: Any) -> LLMRequest:
    given: dict[str, Any] = {"model": "smollm2-135m", **fields}
    return LLMRequest(messages, **given)


def called(name: str) -> tuple[Message, Message]:
    call = ToolCall(f"id-{name}", name)
    return Message(Role.ASSISTANT, "", (call,)), Message(Role.TOOL, "fine", tool_call_id=call.id)


# -- schemas


@pytest.mark.parametrize(
    "beyond",
    [
        {"uniqueItems": True},
        {"not": {"type": "string"}},
        {"if": {}, "then": False, "else": False},
        {"contains": {"const": 1}},
        {"minProperties": 1},
        {"dependentRequired": {"a": ["b"]}},
        {"enum": []},
        {"type": "file"},
        {"minLength": "three"},
        {"minLength": 10**9},
        {"minimum": "low"},
        {"pattern": "^(?=a)a$"},
        {"pattern": "^(a)\\1$"},
        {"pattern": "\\bword\\b"},
        {"pattern": "^a$|^b$"},
        {"pattern": "[["},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#/$defs/missing"},
        {"$ref": "#anchor"},
        {"anyOf": [False]},
        {"x-made-up": 1},
    ],
)
def test_what_no_grammar_can_express_is_dropped(beyond: dict[str, Any]) -> None:
    assert loosened(beyond) == {}


WITHIN: list[dict[str, Any]] = [
    {"type": ["string", "null"], "maxLength": 3},
    {"type": "string", "pattern": "^(?:[a-z]+|\\d{2})$"},
    {"type": "string", "pattern": "^[^x]\\$$"},
    {"type": "string", "format": "date"},
    {"type": "integer", "minimum": 1, "exclusiveMaximum": 5, "multipleOf": 2},
    {"type": "array", "prefixItems": [{"type": "null"}], "items": False, "minItems": 1},
    {"const": {"not": 1}},
    {"enum": ["a", 1, None]},
    {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "null"}}},
    {"allOf": [{"type": "object", "properties": {"x": {}}}, {"required": ["x"]}]},
]


@pytest.mark.parametrize("within", WITHIN)
def test_what_a_grammar_can_express_is_kept(within: dict[str, Any]) -> None:
    assert loosened(within) == within


def test_one_of_becomes_any_of() -> None:
    assert loosened({"oneOf": [{"type": "null"}, {"type": "string"}]}) == {"anyOf": [{"type": "null"}, {"type": "string"}]}


def test_references_follow_a_schema_that_is_moved() -> None:
    schema = {"items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"items": {"$ref": "#"}}}}
    moved = loosened(schema, base="#/$defs/answer")
    assert moved == {"items": {"$ref": "#/$defs/answer/$defs/n"}, "$defs": {"n": {"items": {"$ref": "#/$defs/answer"}}}}


def test_an_object_with_named_members_gets_no_others() -> None:
    inner: dict[str, Any] = {"type": "object", "properties": {"x": {}}}
    assert loosened({"properties": {"a": inner}}) == {
        "properties": {"a": {**inner, "additionalProperties": False}},
        "additionalProperties": False,
    }


OPENED: list[dict[str, Any]] = [
    {"type": "object"},
    {"properties": {"a": {}}, "additionalProperties": {"type": "null"}},
    {"properties": {"a": {}}, "required": ["b"]},
    {"properties": {"a": {}}, "patternProperties": {"^x": {}}},
    {"properties": {"a": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
]


@pytest.mark.parametrize("opened", OPENED)
def test_an_object_that_needs_others_stays_open(opened: dict[str, Any]) -> None:
    assert loosened(opened) == opened


def test_the_choices_of_enumerations_are_all_listed() -> None:
    both = {"type": "object", "properties": {"a": {"enum": ["x", 1]}, "b": {"type": "boolean"}}, "required": ["b", "a"]}
    assert choices(both) == ('{"a":"x","b":true}', '{"a":"x","b":false}', '{"a":1,"b":true}', '{"a":1,"b":false}')


@pytest.mark.parametrize(
    "many",
    [
        {"type": "string"},
        {"enum": list(range(65))},
        {"type": "object", "properties": {"a": {"type": "boolean"}}},
        {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "integer"}}, "required": ["a", "b"]},
        {"type": "object", "properties": {name: {"enum": [1, 2, 3]} for name in "abcd"}, "required": list("abcd")},
    ],
)
def test_a_schema_with_many_answers_has_no_choices(many: dict[str, Any]) -> None:
    assert choices(many) == ()


@pytest.mark.parametrize(
    ("values", "prefix", "middles", "suffix"),
    [
        (["positive", "negative"], '{"a":"', '"positive" | "negative"', '"}'),
        (["possible", "positive"], '{"a":"', '"possible" | "positive"', '"}'),
        (["x", 1], '{"a":', '"\\"x\\"" | "1"', "}"),
        (["", "x"], '{"a":"', '"\\"}" | "x\\"}"', ""),
    ],
)
def test_the_model_writes_only_what_tells_the_choices_apart(values: list[Any], prefix: str, middles: str, suffix: str) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": values}}, "required": ["a"]}
    assert obeying(schema) == Constraint(f"%llguidance {{}}\nstart: {middles}", prefix, suffix)


# -- conversations


def offered(request: LLMRequest) -> list[str]:
    """The tools a grammar allows, and `answer`."""
    grammar = constraint_of(request).grammar or ""
    options = json.loads(grammar.partition("%json ")[2])["anyOf"]
    return [option["properties"].get("tool", {"const": "answer"})["const"] for option in options]


def test_a_tool_is_offered_once_for_a_message_and_again_for_the_next() -> None:
    hello, tools = Message(Role.USER, "Hi."), (CLOCK, WEATHER)
    assert offered(conversation(hello, tools=tools)) == ["clock", "weather", "answer"]
    assert offered(conversation(hello, *called("clock"), tools=tools)) == ["weather", "answer"]
    assert offered(conversation(hello, *called("clock"), hello, tools=tools)) == ["clock", "weather", "answer"]


def test_after_two_rounds_only_an_answer_is_left() -> None:
    third = ToolSpec("third", "Another.", {"type": "object"})
    request = conversation(Message(Role.USER, "Hi."), *called("clock"), *called("weather"), tools=(CLOCK, WEATHER, third))
    assert offered(request) == ["answer"]


def test_a_tool_that_is_named_is_due_until_it_was_called() -> None:
    asked = Message(Role.USER, "What does the Clock say about weather.com's o'clocks?")
    assert offered(conversation(asked, tools=(CLOCK,))) == ["clock"]
    assert offered(conversation(asked, *called("clock"), tools=(CLOCK,))) == ["answer"]
    assert offered(conversation(Message(Role.USER, "clocks, o_clock"), tools=(CLOCK,))) == ["clock", "answer"]


def test_the_model_is_told_of_tools_and_their_results_in_words() -> None:
    request = conversation(
        Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "Now?"), *called("clock"), Message(Role.ASSISTANT, "Noon."), tools=(CLOCK,)
    )
    said = [(message["role"], message["content"]) for message in question_of(request, Constraint())["messages"]]
    assert said == [
        (
            "system",
            'Be brief.\n\nAnswer with JSON, one of:\nTell the time: {"tool":"clock","arguments":{}}\nAnything else: {"answer":"..."}',
        ),
        ("user", "Hello!"),
        ("assistant", '{"answer":"Hello! How can I help you?"}'),
        ("user", "Now?"),
        ("assistant", '{"tool":"clock","arguments":{}}'),
        ("user", "Result of clock: fine"),
        ("assistant", '{"answer":"Noon."}'),
    ]


def test_marks_of_the_template_and_broken_characters_are_taken_apart() -> None:
    request = conversation(Message(Role.USER, "a<|im_end|>\ud800"))
    assert question_of(request, Constraint())["messages"] == [{"role": "user", "content": "a<| im_end |>?"}]


def test_the_least_is_one_token_and_no_drawing() -> None:
    question = question_of(conversation(Message(Role.USER, "a"), max_tokens=0), Constraint())
    assert (question["max_tokens"], question["temperature"], "grammar" in question) == (1, 0.0, False)


# -- answers


def read(reader: Reader, text: str, size: int, *, whole: bool = True) -> tuple[str, ToolCall | None]:
    for start in range(0, len(text), size):
        reader.read(text[start : start + size])
    return reader.finish(whole=whole)


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize("text", ["Grüße 🚢", 'a "quoted" \\ line\nbreak\ttab', "", 'ends with "}', "\u0001\x7f"])
def test_an_answer_comes_out_as_it_was_meant_however_it_is_cut_up(text: str, size: int) -> None:
    for ascii_only in (True, False):
        pieces: list[str] = []
        written = json.dumps({"answer": text}, separators=(",", ":"), ensure_ascii=ascii_only)
        assert read(ToolOrAnswer(pieces.append, call_id="c", as_json=False), written, size) == (text, None)
        assert "".join(pieces) == text


@pytest.mark.parametrize("size", range(1, 12))
def test_an_answer_in_json_streams_without_its_wrapping(size: int) -> None:
    pieces: list[str] = []
    assert read(ToolOrAnswer(pieces.append, call_id="c", as_json=True), '{"answer":{"a":[{}]}}', size) == ('{"a":[{}]}', None)
    assert "".join(pieces) == '{"a":[{}]}'


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_call_is_not_streamed(size: int) -> None:
    pieces: list[str] = []
    reader = ToolOrAnswer(pieces.append, call_id="c", as_json=False)
    assert read(reader, '{"tool":"clock","arguments":{"zone":"UTC"}}', size) == ("", ToolCall("c", "clock", {"zone": "UTC"}))
    assert pieces == []


def test_a_call_that_was_cut_off_is_malformed() -> None:
    text = '{"tool":"clock","arguments":{"zone":"U'
    reader = ToolOrAnswer(lambda piece: None, call_id="c", as_json=False)
    assert read(reader, text, 5, whole=False) == ("", ToolCall("c", "clock", malformed=text))


@pytest.mark.parametrize(
    ("as_json", "written", "text"),
    [
        (False, '{"answer":"half a wo', "half a wo"),
        (False, '{"answer":"a\\u00', "a"),
        (True, '{"answer":{"a":1', '{"a":1'),
        (False, '{"to', ""),
    ],
)
def test_an_answer_that_was_cut_off_keeps_what_there_is(as_json: bool, written: str, text: str) -> None:  # noqa: FBT001
    pieces: list[str] = []
    assert read(ToolOrAnswer(pieces.append, call_id="c", as_json=as_json), written, 3, whole=False) == (text, None)
    assert "".join(pieces) == text


def test_what_surrounds_a_choice_is_part_of_the_answer() -> None:
    pieces: list[str] = []
    assert read(Plain(pieces.append, prefix='{"a":"', suffix='"}'), "yes", 2) == ('{"a":"yes"}', None)
    assert "".join(pieces) == '{"a":"yes"}'
    assert read(Plain(lambda piece: None, prefix='{"a":"', suffix='"}'), "ye", 2, whole=False) == ('{"a":"ye', None)
