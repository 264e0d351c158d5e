"""Schemas of strangers: which can judge arguments, what they say about wrong ones, and what they mirror into headers."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hansa.tools.event_stream import messages
from hansa.tools.schemas import flaw, mirrored_headers, wrong_arguments

pytestmark = pytest.mark.timeout(20)


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        obj(a={"type": "string", "pattern": "^(?=a)a+$"}),
        {"$schema": "http://json-schema.org/draft-07/schema#", **obj(a={"type": "integer"})},
        obj(a={"type": "object", "properties": {"b": {"type": "string", "x-mcp-header": "B"}}}),
        obj(**{"x-mcp-header": {"type": "string"}}),
        {**obj(a={"const": {"x-mcp-header": 5}}), "$defs": {"a": {"type": "object"}}},
    ],
)
def test_a_schema_that_can_judge_has_no_flaw(schema: dict[str, Any]) -> None:
    assert flaw(schema) == ""


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({}, "not of type object"),
        ({"type": ["object", "null"]}, "not of type object"),
        ({"type": "object", "required": "a"}, "not valid"),
        (obj(a={"type": "strnig"}), "not valid"),
        (obj(a={"$ref": "http://127.0.0.1:9/schema"}), "not valid"),
        ({"type": "object", "$schema": "http://example.org/mine"}, "not valid"),
        (obj(a={"pattern": "("}), "not valid"),
        (obj(a={"description": "x" * 70_000}), "bytes"),
        (nested(400), "not valid"),
        ({"type": "object", "x-mcp-header": "A"}, "no single argument"),
        (obj(a={"type": "array", "items": {"type": "string", "x-mcp-header": "A"}}), "no single argument"),
        (obj(a={"anyOf": [{"type": "string", "x-mcp-header": "A"}]}), "no single argument"),
        ({"type": "object", "$defs": {"a": {"type": "string", "x-mcp-header": "A"}}}, "no single argument"),
        (obj(a={"type": "number", "x-mcp-header": "A"}), "strings, integers and booleans"),
        (obj(a={"type": "string", "x-mcp-header": "A: b\r\n"}), "not the name of a header"),
        (obj(a={"type": "string", "x-mcp-header": ""}), "not the name of a header"),
        (obj(a={"type": "string", "x-mcp-header": "A"}, b={"type": "string", "x-mcp-header": "a"}), "twice"),
    ],
)
def test_a_schema_that_cannot_judge_is_told_why(schema: dict[str, Any], told: str) -> None:
    assert told in flaw(schema)


def test_wrong_arguments_are_told_with_their_place() -> None:
    schema = {**obj(a=obj(b={"type": "integer"}), c={"type": "integer"}), "required": ["c"], "additionalProperties": False}
    told = wrong_arguments(schema, {"a": {"b": "x"}, "d": 1})
    assert '"x" is not of type "integer" (at a.b)' in told
    assert '"c" is a required property (at the top)' in told
    assert "'d' was unexpected" in told
    assert wrong_arguments(schema, {"a": {"b": 1}, "c": 2}) == ""


def test_a_pattern_that_backtracks_without_an_end_is_stopped() -> None:
    schema = obj(a={"type": "string", "pattern": r"^(?=(a+)+$)(a|aa)+b$"})
    assert flaw(schema) == ""
    assert "(at a)" in wrong_arguments(schema, {"a": "a" * 5_000 + "c"})


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("us-west1", "us-west1"),
        (42, "42"),
        (True, "true"),
        (False, "false"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ("", ""),
    ],
)
def test_a_mirrored_value_is_written_as_the_protocol_says(value: Any, header: str) -> None:
    schema = obj(a=obj(b={"type": ["string"], "x-mcp-header": "Wrong"}))
    schema["properties"]["a"]["properties"]["b"] = {"type": "string", "x-mcp-header": "Place"}
    assert mirrored_headers(schema, {"a": {"b": value}}) == {"Mcp-Param-Place": header}


@pytest.mark.parametrize("arguments", [{}, {"a": None}, {"a": {"b": None}}, {"a": 5}])
def test_a_value_that_is_not_there_is_not_mirrored(arguments: dict[str, Any]) -> None:
    assert mirrored_headers(obj(a=obj(b={"type": "string", "x-mcp-header": "B"})), arguments) == {}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_events_are_read_wherever_they_are_cut(size: int) -> None:
    stream = (
        b"\xef\xbb\xbfdata: one\n\n: note\ndata:two\ndata:  lines\n\nevent: ping\ndata: not this\n\nid: 1\ndata:\n\n"
        b"event: message\r\ndata: three\r\n\r\ndata: four\r\rretry: 5\rdata\rdata: five\r\ndata: six\r\n\r\ndata: cut off\n"
    )

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(stream), size):
            yield stream[start : start + size]

    assert [data async for data in messages(parts())] == [b"one", b"two\n lines", b"three", b"four", b"\nfive\nsix"]
