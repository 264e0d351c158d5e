"""What is wrong with a value, and the words for it. Knows no types of objects and no rules.

Warning: a message never repeats a text it found in the data (it may be a secret put in the wrong place); it names keys,
numbers and, where a value is one of a few words, that word.
"""

import difflib
import json
import re
from collections.abc import Iterable
from datetime import date, datetime
from typing import Literal

from msgspec import Struct

Code = Literal["unknown_field", "type", "range", "length", "pattern", "required", "one_of", "kind", "version", "duplicate", "immutable"]
Keys = tuple[str | int, ...]
"""The way to a value: names of fields and keys, positions in lists, from the outside in."""

MAX_PROBLEMS = 100
"""Most problems told at once: nobody reads more, and an answer must not be larger than what it answers."""

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_WORD_LENGTH = 64


class Problem(Struct, frozen=True, kw_only=True):
    """One thing wrong at one place.

    `path` is for people (`spec.tools[0].allow`), `keys` the same way for programs that look up the line in a file.
    `suggestion` says what to do, or is empty where there is nothing better to say than the message.
    """

    path: str
    code: Code
    message: str
    suggestion: str = ""
    keys: Keys = ()


def problem(keys: Keys, code: Code, message: str, suggestion: str = "") -> Problem:
    """Make a problem at `keys`."""
    return Problem(path=path_of(keys), code=code, message=message, suggestion=suggestion, keys=keys)


def path_of(keys: Keys) -> str:
    """Write a way as people write it: `spec.tools[0]`, `metadata.labels["example.org/team"]`; empty for the value itself."""
    parts: list[str] = []
    for key in keys:
        if isinstance(key, int):
            parts.append(f"[{key}]")
        elif _PLAIN_KEY.fullmatch(key) and len(key) <= _WORD_LENGTH:
            parts.append(f".{key}" if parts else key)
        else:
            parts.append(f"[{json.dumps(shown(key))}]")
    return "".join(parts)


def shown(word: str) -> str:
    """Cut a word that came from outside to a length fit for a message, with nothing in it that a terminal obeys."""
    cut = word if len(word) <= _WORD_LENGTH else word[:_WORD_LENGTH] + "..."
    return "".join(each if each.isprintable() else "?" for each in cut)


def named(data: object) -> str:
    """Name the type of a value in the words of YAML and JSON."""
    if data is None:
        return "null"
    names: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "a boolean"),
        (int, "an integer"),
        (float, "a number"),
        (str, "a string"),
        ((list, tuple), "a list"),
        (dict, "an object"),
        (datetime, "a time stamp"),
        (date, "a date"),
        ((bytes, bytearray), "binary data"),
        ((set, frozenset), "a set"),
    )
    for kind, name in names:
        if isinstance(data, kind):
            return name
    return f"a value of type {type(data).__name__}"


def wrong_type(keys: Keys, expected: str, data: object) -> Problem:
    """Make the problem of a value of another type than `expected` (as in "a string"), with the usual way out."""
    suggestion = ""
    if expected == "a string" and isinstance(data, bool | int | float | date):
        suggestion = "put it in quotes"
    elif isinstance(data, str) and expected in {"an integer", "a number", "a boolean"}:
        suggestion = "write it without quotes"
    elif expected == "an integer" and isinstance(data, float) and data.is_integer():
        suggestion = "write it without a decimal point"
    elif expected == "a list" and data is not None:
        suggestion = "write it as a list, even of one entry"
    return problem(keys, "type", f"expected {expected}, got {named(data)}", suggestion)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Find the known word that was probably meant, or None. Case, `_` and `-` count for nothing."""
    words = sorted(known)
    folded = {_folded(each): each for each in words}
    if _folded(word) in folded:
        return folded[_folded(word)]
    close = difflib.get_close_matches(word[:_WORD_LENGTH], words, n=1)
    return close[0] if close else None


def meant(word: str, known: Iterable[str], *, otherwise: str) -> str:
    """Suggest the nearest known word, or else list those known, introduced by `otherwise`."""
    words = tuple(known)
    near = nearest(word, words)
    if near is not None:
        return f"did you mean `{near}`?"
    return f"{otherwise}: {listed(words)}" if words else ""


def listed(words: Iterable[str]) -> str:
    """Write words as `a`, `b`, `c`."""
    return ", ".join(f"`{each}`" for each in words)


def _folded(word: str) -> str:
    return word.replace("_", "").replace("-", "").casefold()
