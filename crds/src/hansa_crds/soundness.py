"""Whether a value is plain data at all: what JSON can say, finite, not too deep, not too large, not in a circle.

Knows no types of objects. Runs before everything else, so that what comes after may recurse over the value and print
it. YAML loaders give what JSON cannot: aliases that point back at themselves, aliases that multiply, keys that are not
strings, `.nan`.
"""

import math
from typing import Any, cast

from hansa_crds.problem import MAX_PROBLEMS, Code, Keys, Problem, named, problem

MAX_DEPTH = 64
MAX_VALUES = 100_000
_INT64 = 2**63


class Soundness:
    """One pass over one value. `found` are the problems; after one that is `fatal` the value must not be looked at again.

    `told` are the places of values that are wrong in themselves, so that nothing more need be said of them.
    """

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.fatal = False
        self.told: set[Keys] = set()
        self._values = 0
        self._outer: set[int] = set()

    def look(self, data: Any, keys: Keys = ()) -> None:
        """Look at a value and all in it."""
        self._values += 1
        if self._values > MAX_VALUES:
            self._stop((), "length", f"has more than {MAX_VALUES} values (each use of a YAML alias counts anew)")
        elif isinstance(data, dict | list | tuple):
            self._container(cast("dict[Any, Any] | list[Any] | tuple[Any, ...]", data), keys)
        elif isinstance(data, str):
            self._text(data, keys)
        elif isinstance(data, int):
            if not -_INT64 <= data < _INT64:
                self._add(keys, "range", "is too large a number: the allowed range is that of 64 bits")
        elif isinstance(data, float) and not math.isfinite(data):
            self._add(keys, "range", "must be a finite number")

    def _container(self, data: dict[Any, Any] | list[Any] | tuple[Any, ...], keys: Keys) -> None:
        if id(data) in self._outer:
            self._stop(keys, "type", "contains itself (a YAML alias that points back at its own anchor)")
            return
        if len(keys) >= MAX_DEPTH:
            self._stop(keys, "length", f"is nested deeper than {MAX_DEPTH} levels")
            return
        self._outer.add(id(data))
        if isinstance(data, dict):
            self._entries(data, keys)
        else:
            for position, each in enumerate(data):
                if self.fatal:
                    break
                self.look(each, (*keys, position))
        self._outer.discard(id(data))

    def _entries(self, data: dict[Any, Any], keys: Keys) -> None:
        for key, each in data.items():
            if self.fatal:
                break
            if not isinstance(key, str):
                self._add(keys, "type", f"has a key that is {named(key)}; keys are strings", "put the key in quotes", told=False)
            elif _storable(key):
                self.look(each, (*keys, key))
            else:
                self._add((*keys, key), "pattern", "has a name that is not text that can be stored (a NUL or half a character)")

    def _text(self, data: str, keys: Keys) -> None:
        if not _storable(data):
            self._add(keys, "pattern", "is not text that can be stored (it has a NUL or half a character)")

    def _add(self, keys: Keys, code: Code, message: str, suggestion: str = "", *, told: bool = True) -> None:
        self.found.append(problem(keys, code, message, suggestion))
        self.told.update([keys] if told else ())
        self.fatal = self.fatal or len(self.found) > MAX_PROBLEMS

    def _stop(self, keys: Keys, code: Code, message: str) -> None:
        self.found.append(problem(keys, code, message))
        self.fatal = True


def _storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text
