"""The redactor: a value is struck out however it is written, also when a text comes in pieces."""

import base64
import json
import textwrap
import traceback
from urllib.parse import quote, quote_plus
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.secrets.redaction import KEPT, Redactor

A, B = UUID(int=1), UUID(int=2)
VALUE = 'c4nary/+value "with" everything: \u00e4\U0001f511\\'
QUOTED = 'it\'s a "quoted" one'
PRIVATE_KEY = f"-----BEGIN PRIVATE KEY-----\n{'c4nary' * 10}\n{'yranac4' * 4}\n-----END PRIVATE KEY-----\n"


def knowing(*values: str) -> Redactor:
    redactor = Redactor()
    for value in values:
        redactor.learn(A, "smtp", value)
    return redactor


WRITTEN = {
    "as it is": VALUE,
    "JSON": json.dumps(VALUE, ensure_ascii=False),
    "JSON in ASCII": json.dumps(VALUE),
    "JSON in JSON": json.dumps(json.dumps({"password": VALUE})),
    "Python": repr({"password": VALUE}),
    "Python in JSON": json.dumps(repr({"password": VALUE})),
    "URL": quote(VALUE, safe=""),
    "form": quote_plus(VALUE),
    "base64": base64.b64encode(VALUE.encode()).decode(),
    "Basic": base64.b64encode(f"user:{VALUE}".encode()).decode(),
    "Basic, longer": base64.b64encode(f"user1:{VALUE}@".encode()).decode(),
    "base64 of URLs": base64.urlsafe_b64encode(f"u:{VALUE}".encode()).decode(),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_a_value_is_struck_out_however_it_is_written(written: str) -> None:
    shown = knowing(VALUE).text(A, f"before {WRITTEN[written]} after")
    assert "[secret smtp]" in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")


def test_a_value_with_both_quotes_is_struck_out_as_python_writes_it() -> None:
    for written in (repr(QUOTED), json.dumps(repr({"password": QUOTED})), str(KeyError(QUOTED))):
        assert "[secret smtp]" in knowing(QUOTED).text(A, written)


def test_a_value_of_several_lines_is_struck_out_wherever_its_lines_stand() -> None:
    """The traceback of a group of errors stands behind bars, and what somebody quotes behind a mark."""
    try:
        raise ExceptionGroup("two", [ValueError(f"a key: {PRIVATE_KEY}"), ValueError({"key": PRIVATE_KEY})])
    except ExceptionGroup as error:
        told = "".join(traceback.format_exception(error))
    assert f"  | {'c4nary' * 10}" in told
    for written in (told, json.dumps({"exception": told}), textwrap.indent(PRIVATE_KEY, "> ")):
        shown = knowing(PRIVATE_KEY).line(written)
        assert ("c4nary" in shown, "yranac4" in shown, "[secret smtp]" in shown) == (False, False, True)


def test_what_another_tenant_looked_up_is_struck_out_of_logs_alone() -> None:
    redactor = knowing(VALUE)
    assert redactor.text(B, VALUE) == VALUE
    assert redactor.line(VALUE) == "[secret smtp]"


def test_data_is_cleaned_at_any_depth_and_names_of_fields_too() -> None:
    cleaned = knowing("hunter2hunter2").value(A, {"a": [1, {"b": "x hunter2hunter2"}], "hunter2hunter2": None})
    assert cleaned == {"a": [1, {"b": "x [secret smtp]"}], "[secret smtp]": None}


def test_a_value_within_another_leaves_no_rest() -> None:
    assert knowing("hunter2hunter2", "hunter2hunter2-and-more").text(A, "hunter2hunter2-and-more") == "[secret smtp]"


def test_a_rotated_value_is_still_struck_out() -> None:
    assert knowing("first-value", "second-value").text(A, "first-value second-value") == "[secret smtp] [secret smtp]"


def test_a_short_value_is_left_alone() -> None:
    assert knowing("yes").text(A, "yes") == "yes"


def test_what_is_remembered_is_bounded() -> None:
    redactor = knowing(*(f"value number {number}" for number in range(KEPT + 10)))
    assert redactor.text(A, "value number 0.") == "value number 0."
    assert redactor.line(f"value number {KEPT + 9}") == "[secret smtp]"


def test_nobody_has_anothers_values_forgotten() -> None:
    redactor = knowing("hunter2hunter2")
    for number in range(KEPT + 10):
        redactor.learn(B, "many", f"value number {number}")
    assert redactor.text(A, "hunter2hunter2") == redactor.line("hunter2hunter2") == "[secret smtp]"
    assert redactor.text(B, f"value number {KEPT + 9}") == "[secret many]"


@given(st.lists(st.integers(0, 60), max_size=6), st.sampled_from(["", "x", "hunter", "hunterhunter2hunter2!"]))
def test_a_text_in_pieces_says_what_the_whole_text_would(cuts: list[int], before: str) -> None:
    redactor = knowing("hunter2hunter2", "hunter2 and a half")
    whole = f"{before}hunter2hunter2 then hunter2 and a half, hunter2 an"
    stream, shown, at = redactor.stream(A), "", 0
    for cut in [*sorted(cuts), len(whole)]:
        shown += stream.feed(whole[at:cut])
        assert "hunter2h" not in shown
        at = max(at, cut)
    assert shown + stream.end() == redactor.text(A, whole)


def test_a_text_in_pieces_is_not_held_back_when_nothing_is_known() -> None:
    assert Redactor().stream(A).feed("hun") == "hun"
    assert knowing(VALUE).stream(A).feed("hello") == "hello"
