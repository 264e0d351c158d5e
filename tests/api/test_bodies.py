"""Request bodies that can't be taken: each is refused with the place, and nothing else happens."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from api.problem import problem

START = "/v1/agents/echo/runs"


async def post(api: httpx2.AsyncClient, body: bytes, path: str = START) -> httpx2.Response:
    return await api.post(path, content=body, headers={"content-type": "application/json"})


async def test_a_body_over_the_limit_is_refused_with_the_limit(api: httpx2.AsyncClient, echo: str) -> None:
    answer = await post(api, b'{"input":"' + b"x" * 1_048_576 + b'"}')
    assert "1048576 bytes" in problem(answer, 413, "too_large")["detail"]


async def test_a_body_over_the_limit_is_refused_also_without_a_content_length(api: httpx2.AsyncClient, echo: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 65_536

    answer = await api.post(START, content=pieces())
    assert "1048576 bytes" in problem(answer, 413, "too_large")["detail"]


async def test_a_body_just_under_the_limit_is_taken(api: httpx2.AsyncClient, echo: str) -> None:
    text = "x" * (1_048_576 - len('{"input":""}'))
    assert (await post(api, json.dumps({"input": text}, separators=(",", ":")).encode())).status_code == 202


@pytest.mark.parametrize(
    ("body", "byte"),
    [
        (b'{"input":' + b"[" * 64 + b"]" * 64 + b"}", 9 + 63),
        (b'{"input":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}", 9 + 63 * 5),
        (b"[" * 100_000, 64),
    ],
)
async def test_a_body_nested_too_deep_is_refused_with_the_byte(api: httpx2.AsyncClient, echo: str, body: bytes, byte: int) -> None:
    assert problem(await post(api, body), 400, "malformed")["detail"] == f"the body is nested deeper than 64 levels at byte {byte}"


async def test_brackets_in_strings_are_no_depth(api: httpx2.AsyncClient, echo: str) -> None:
    assert (await post(api, json.dumps({"input": '"[{\\' * 100}).encode())).status_code == 202
    nested: Any = "deepest"
    for _ in range(62):
        nested = [nested]
    assert (await post(api, json.dumps({"input": nested}).encode())).status_code == 202


@pytest.mark.timeout(10)
async def test_a_string_that_never_ends_costs_no_time(api: httpx2.AsyncClient, echo: str) -> None:
    problem(await post(api, b"[" * 65 + b'"' + b'\\"' * 500_000), 400, "malformed")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"input": tru}', "at byte 10"),
        (b'{"input": 5', "at byte 11"),
        ('{"input": "ä", x}'.encode(), "at byte 16"),
        (b'{"input": "a\x01"}', "at byte 12"),
        (b'{"input": "\xff"}', "not UTF-8: byte 11"),
        (b'{"input": "\xed\xa0\x80"}', "not UTF-8: byte 11"),
        (b'\xef\xbb\xbf{"input": 1}', "byte 0"),
        (b'{"input": NaN}', "no NaN"),
        (b'{"input": -Infinity}', "no -Infinity"),
        (rb'{"input": "\ud800"}', r"\ud800 at byte 11 is half of a surrogate pair"),
        (rb'{"input": "\\\udc00\ud83d"}', r"\udc00 at byte 13 is half of a surrogate pair"),
        (b'{"input": 1}{"input": 2}', "at byte 12"),
        (b"input=1", "at byte 0"),
    ],
)
async def test_what_is_not_json_in_utf_8_is_refused_with_the_byte(api: httpx2.AsyncClient, echo: str, body: bytes, said: str) -> None:
    assert said in problem(await post(api, body), 400, "malformed")["detail"]


@pytest.mark.parametrize(
    ("body", "path", "said"),
    [
        ({"inptu": 1}, "inptu", "did you mean `input`?"),
        ({"input": 1, "sessionId": "x"}, "sessionId", "did you mean `session_id`?"),
        ({}, "input", "missing"),
        ({"input": 1, "revision": "one"}, "revision", "expected an integer, got a string"),
        ({"input": 1, "revision": 0}, "revision", "1"),
        ({"input": 1, "revision": 2**31}, "revision", "2147483647"),
        ({"input": 1, "revision": 10**40}, "revision", "64 bits"),
        ({"input": 1, "session_id": "mine"}, "session_id", "UUID"),
        ([], "", "expected an object, got a list"),
        ("text", "", "expected an object, got a string"),
        (None, "", "expected an object, got null"),
    ],
)
async def test_a_wrong_field_is_named_with_what_was_expected(api: httpx2.AsyncClient, echo: str, body: Any, path: str, said: str) -> None:
    found = problem(await post(api, json.dumps(body).encode()), 422, "invalid")
    error = next(each for each in found["errors"] if each["path"] == path)
    assert said in f"{error['message']} {error.get('suggestion')}"
    assert said in found["detail"]


async def test_all_wrong_fields_are_named_at_once(api: httpx2.AsyncClient, echo: str) -> None:
    found = problem(await post(api, b'{"text": 1, "revision": "x", "session_id": 5}'), 422, "invalid")
    assert {(each["path"], each["code"]) for each in found["errors"]} >= {
        ("text", "unknown_field"),
        ("input", "required"),
        ("revision", "type"),
        ("session_id", "type"),
    }


async def test_a_wrong_item_in_a_list_is_named_by_its_place(api: httpx2.AsyncClient) -> None:
    answer = await api.post("/v1/objects:apply", json={"objects": [{"manifest": None}, {"source": {"line": "x", "colum": 1}}]})
    paths = {each["path"] for each in problem(answer, 422, "invalid")["errors"]}
    assert paths == {"objects[1].manifest", "objects[1].source.line", "objects[1].source.colum"}


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"9" * 5000])
async def test_a_number_that_nothing_can_hold_is_refused(api: httpx2.AsyncClient, echo: str, number: bytes) -> None:
    found = problem(await post(api, b'{"input": [1, ' + number + b"]}"), 422, "invalid")
    assert [each["code"] for each in found["errors"]] == ["range"]


@pytest.mark.parametrize("body", [b'{"input": 1, "input": 2}', b'{"input": {"a": [{"b": 1, "c": 2, "b": 1}]}}'])
async def test_a_key_that_stands_twice_is_refused(api: httpx2.AsyncClient, echo: str, body: bytes) -> None:
    assert "stands twice" in problem(await post(api, body), 422, "invalid")["detail"]


@pytest.mark.parametrize(
    "value",
    [
        "a NUL \x00 inside",
        "\U0001f600 ä \u2028 \x7f \\ud800",
        {"\x00": ["\x00"]},
        2**63,
        -(10**40),
        0.1,
        1e308,
        5e-324,
        1.0,
        "",
        None,
        False,
        [],
        {},
        {"": {"z": 1, "a": 2}},
    ],
)
async def test_any_json_value_comes_back_as_it_was_sent(api: httpx2.AsyncClient, echo: str, value: Any) -> None:
    answer = await api.post(START, params={"wait": 10}, json={"input": value})
    run = answer.json()
    assert answer.status_code == 200, answer.text
    assert (run["state"], run["input"]) == ("completed", value)
    assert type(run["input"]) is type(value)
    events = (await api.get(f"/v1/sessions/{run['session_id']}/events")).json()["data"]
    assert events[0]["data"]["input"] == value
    if isinstance(value, str):
        assert run["output"] == events[-1]["data"]["output"] == value


async def test_a_refused_body_starts_nothing(api: httpx2.AsyncClient, echo: str) -> None:
    newest = (await api.get("/v1/runs", params={"limit": 1})).json()["data"]
    problem(await post(api, b'{"input": 1, "x": 2}'), 422, "invalid")
    assert (await api.get("/v1/runs", params={"limit": 1})).json()["data"] == newest


async def test_nul_in_an_address_is_refused(api: httpx2.AsyncClient, echo: str) -> None:
    for path in ("/v1/agents/a%00b", "/v1/objects/Agent/%00", "/v1/runs?agent=%00", "/v1/sessions?agent=a%00"):
        problem(await api.get(path), 400, "malformed")
    problem(await post(api, rb'{"agent": "a\u0000"}', "/v1/sessions"), 422, "invalid")


async def test_bytes_that_are_no_text_in_an_address_are_no_defect(api: httpx2.AsyncClient) -> None:
    problem(await api.get("/v1/agents/%ff%fe"), 404, "not_found")
    problem(await api.get("/v1/nothing%ffhere"), 404, "not_found")
