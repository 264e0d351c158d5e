"""Request bodies: from bytes to a Struct, or the refusal that names the place. What is refused is refused before anything is done.

Warning: a key that stands twice is refused, since two readers of such a body may each believe another one of them.
"""

import json
import re
from typing import Any, NoReturn, TypeVar

import msgspec

from hansa.api.services import AnyRequest, services
from hansa.errors import FieldError, Invalid, Malformed
from hansa_crds import problems

T = TypeVar("T", bound=msgspec.Struct)
STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # an open string is matched too: nothing is looked at twice
SURROGATES = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.")
"""Whole pairs, then half ones (the group), then every other escape, so that an escaped backslash hides nothing."""
HINT = "Send Content-Type: application/json and a JSON object in UTF-8."


async def body(request: AnyRequest, type_: type[T]) -> T:
    """The decoded body. Raises `Malformed` (not JSON, not UTF-8, too deep: with the byte) or `Invalid` (every wrong field)."""
    raw = await request.body()
    if not raw.strip():
        raise Malformed("the body is empty, a JSON object is expected", hint=HINT)
    _check_depth(raw, services(request).settings.server.body_depth)
    _check_syntax(raw)
    try:
        return msgspec.json.decode(raw, type=type_)
    except msgspec.ValidationError as error:
        raise _refusal(raw, type_, error) from None


def _refusal(raw: bytes, type_: type[msgspec.Struct], error: msgspec.ValidationError) -> Invalid:
    """All that is wrong with the fields; what `error` says when that is a number that no type here can hold."""
    try:
        value = msgspec.json.decode(raw)
    except msgspec.ValidationError as out_of_range:
        message, _, place = str(out_of_range).partition(" - at `$")
        path = place.rstrip("`").lstrip(".")
        return Invalid(f"{path or 'body'}: {message}", errors=(FieldError(path, "range", message),))
    found = problems(value, type_)
    errors = tuple(FieldError(each.path, each.code, each.message, each.suggestion or None) for each in found)
    told = [f"{each.path or 'body'}: {each.message}{f', {each.suggestion}' if each.suggestion else ''}" for each in errors[:3]]
    return Invalid("; ".join(told) or str(error), errors=errors)


def _check_depth(raw: bytes, limit: int) -> None:
    if raw.count(b"[") + raw.count(b"{") <= limit:
        return
    depth = 0
    for bracket in re.finditer(rb"[\[\]{}]", STRINGS.sub(lambda match: b" " * len(match[0]), raw)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > limit:
            raise Malformed(f"the body is nested deeper than {limit} levels at byte {bracket.start()}")


def _check_syntax(raw: bytes) -> None:
    """Refuse what is not JSON in UTF-8, with the byte: the fast decoder names none for some of it."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"the body is not UTF-8: byte {error.start} can't be decoded", hint=HINT) from None
    try:
        # Numbers are judged by the fast decoder, which knows their bounds.
        STRICT.decode(text)
    except json.JSONDecodeError as error:
        raise Malformed(f"the body is not valid JSON: {error.msg} at byte {len(text[: error.pos].encode())}", hint=HINT) from None
    if "\\u" in text:
        for match in SURROGATES.finditer(text):
            if match[1]:
                place = len(text[: match.start()].encode())
                raise Malformed(f"the body is not valid Unicode: {match[1]} at byte {place} is half of a surrogate pair")


def _pairs(pairs: list[tuple[str, Any]]) -> None:
    seen = set[str]()
    for key, _ in pairs:
        if key in seen:
            raise Invalid(f"the key {key[:80]!r} stands twice in one object", errors=(FieldError(key[:80], "duplicate", "stands twice"),))
        seen.add(key)


def _no_constant(word: str) -> NoReturn:
    raise Malformed(f"the body is not valid JSON: it has no {word}", hint="Write null, or the value as a string.")


STRICT = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_no_constant, parse_int=len, parse_float=len)


def answer_of(given: Any, *, wanted: bool, decision: str) -> Any:
    """The `answer` of a body: any JSON value, null too, with the one decision that has an answer, and none or null with another."""
    if wanted and given is msgspec.UNSET:
        raise _wrong_answer("required", f"must be given with `{decision}`: any JSON value, null if there is none")
    if not wanted and given is not msgspec.UNSET and given is not None:
        raise _wrong_answer("unknown_field", f"is given with `{decision}` only")
    return None if given is msgspec.UNSET else given


def _wrong_answer(code: str, message: str) -> Invalid:
    return Invalid(f"answer: {message}", errors=(FieldError("answer", code, message),))
