"""The walk along a type: everything in which plain data differs from what the type asks for, not only the first thing.

Knows msgspec's description of types and the rules of `rules.py`; knows no kind of object by name. What it accepts,
`msgspec.convert(data, type, strict=True)` accepts; a test holds the two together.

Warning: only for data that `soundness.py` has found not fatal; this module recurses.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import date, time
from itertools import islice
from typing import Annotated, Any, cast

from msgspec import Meta, inspect

from hansa_crds.inspection import (
    Choice,
    Fields,
    Number,
    accepts,
    bare,
    bounds,
    described,
    expected,
    fits,
    place_within,
    readable,
    values_of,
)
from hansa_crds.parts import PATTERN_WORDS
from hansa_crds.problem import MAX_PROBLEMS, Keys, Problem, listed, meant, named, nearest, problem, shown, wrong_type
from hansa_crds.rules import broken, rules_of


class Walk:
    """One pass over one value. `found` are the problems; `skip` are places already told, which are not looked at again."""

    def __init__(self, skip: frozenset[Keys] = frozenset()) -> None:
        self.found: list[Problem] = []
        self._skip = skip

    @property
    def full(self) -> bool:
        """Whether enough has been found."""
        return len(self.found) > MAX_PROBLEMS

    def value(self, data: Any, info: inspect.Type, keys: Keys = ()) -> None:
        """Compare a value with a type."""
        if keys in self._skip or self.full:
            return
        match info:
            case inspect.Metadata():
                self.value(data, info.type, keys)
            case inspect.AnyType() | inspect.RawType():
                self._anything(data, keys)
            case inspect.UnionType():
                self._union(data, info, keys)
            case inspect.StructType() | inspect.TypedDictType() | inspect.DataclassType():
                self._object(data, info, keys)
            case inspect.DictType():
                self._entries(data, info, keys)
            case inspect.ListType() | inspect.VarTupleType() | inspect.SetType() | inspect.FrozenSetType():
                self._items(data, info, keys)
            case inspect.TupleType():
                self._tuple(data, info, keys)
            case _:
                self._single(data, info, keys)

    def _single(self, data: Any, info: inspect.Type, keys: Keys) -> None:
        match info:
            case inspect.NoneType():
                if data is not None:
                    self.found.append(wrong_type(keys, "null", data))
            case inspect.BoolType():
                if not isinstance(data, bool):
                    self.found.append(wrong_type(keys, "a boolean", data))
            case inspect.IntType() | inspect.FloatType():
                self._number(data, info, keys)
            case inspect.StrType():
                self._text(data, info, keys)
            case inspect.LiteralType() | inspect.EnumType():
                self._choice(data, info, keys)
            case _:
                self._converted(data, info, keys)

    def _anything(self, data: Any, keys: Keys) -> None:
        if keys in self._skip or self.full:
            return
        if isinstance(data, dict):
            for key, each in cast("dict[Any, Any]", data).items():
                if isinstance(key, str):
                    self._anything(each, (*keys, key))
        elif isinstance(data, list | tuple):
            for position, each in enumerate(cast("list[Any]", data)):
                self._anything(each, (*keys, position))
        elif data is not None and not isinstance(data, bool | int | float | str):
            suggestion = "put it in quotes" if isinstance(data, date | time) else ""
            self.found.append(problem(keys, "type", f"expected a JSON value, got {named(data)}", suggestion))

    def _union(self, data: Any, info: inspect.UnionType, keys: Keys) -> None:
        if data is None and info.includes_none:
            return
        choices = tuple(each for each in map(bare, info.types) if not isinstance(each, inspect.NoneType))
        structs = [each for each in choices if isinstance(each, inspect.StructType)]
        if isinstance(data, dict) and len(structs) > 1:
            self._tagged(cast("dict[Any, Any]", data), structs, keys)
            return
        fitting = next((each for each in choices if fits(data, each)), None)
        if fitting is None and len(choices) == 1:
            fitting = choices[0]
        if fitting is not None:
            self.value(data, fitting, keys)
        else:
            words = " or ".join(dict.fromkeys(expected(each) for each in choices))
            self.found.append(wrong_type(keys, words, cast("object", data)))

    def _tagged(self, data: dict[Any, Any], structs: list[inspect.StructType], keys: Keys) -> None:
        by_tag = {each.tag: each for each in structs}
        field = structs[0].tag_field or "type"
        tags = [str(each) for each in by_tag]
        if field not in data:
            self.found.append(problem((*keys, field), "required", f"`{field}` is missing", f"one of {listed(tags)}"))
            return
        tag = data[field]
        if isinstance(tag, str | int) and not isinstance(tag, bool) and tag in by_tag:
            self.value(data, by_tag[tag], keys)
            return
        message = f"must be one of {listed(tags)}"
        self.found.append(problem((*keys, field), "one_of", message, _guess(tag, tags)))

    def _number(self, data: Any, info: Number, keys: Keys) -> None:
        whole = isinstance(info, inspect.IntType)
        if isinstance(data, bool) or not isinstance(data, int if whole else int | float):
            self.found.append(wrong_type(keys, expected(info), data))
            return
        low = (info.ge is None or data >= info.ge) and (info.gt is None or data > info.gt)
        high = (info.le is None or data <= info.le) and (info.lt is None or data < info.lt)
        if not (low and high):
            self.found.append(problem(keys, "range", f"must be {bounds(info)}, got {data}"))
        elif info.multiple_of is not None and not accepts(data, Annotated[int if whole else float, Meta(multiple_of=info.multiple_of)]):
            self.found.append(problem(keys, "range", f"must be a multiple of {info.multiple_of}, got {data}"))

    def _text(self, data: Any, info: inspect.StrType, keys: Keys) -> None:
        if not isinstance(data, str):
            self.found.append(wrong_type(keys, "a string", data))
        elif self._length(len(data), info, keys, "characters") and info.pattern is not None and not _matches(info.pattern, data):
            words = PATTERN_WORDS.get(info.pattern)
            self.found.append(problem(keys, "pattern", f"must be {words}" if words else f"must match the pattern {info.pattern}"))

    def _choice(self, data: Any, info: Choice, keys: Keys) -> None:
        values = values_of(info)
        if any(type(data) is type(each) and data == each for each in values):
            return
        if isinstance(info, inspect.EnumType) and isinstance(data, str | int) and accepts(data, info.cls):
            return
        words = [str(each) for each in values if each is not None]
        right = any(type(data) is type(each) for each in values)
        message = f"must be one of {listed(words)}" if right else f"must be one of {listed(words)}, got {named(data)}"
        self.found.append(problem(keys, "one_of" if right else "type", message, _guess(data, words)))

    def _object(self, data: Any, info: Fields, keys: Keys) -> None:
        if isinstance(info, inspect.StructType) and info.array_like:
            self._converted(data, info, keys)
            return
        if not isinstance(data, dict):
            self.found.append(wrong_type(keys, "an object", data))
            return
        fields = {each.encode_name: each for each in info.fields}
        entries = {key: each for key, each in cast("dict[Any, Any]", data).items() if isinstance(key, str)}
        if isinstance(info, inspect.StructType) and info.tag_field in entries:
            tag = inspect.LiteralType((info.tag,)) if info.tag is not None else inspect.NoneType()
            self.value(entries[info.tag_field], tag, (*keys, info.tag_field))
        guessed = self._unknown(entries, info, keys)
        for name, field in fields.items():
            if name in entries:
                self.value(entries[name], field.type, (*keys, name))
            elif field.required and name not in guessed:
                suggestion = described(field.type)
                self.found.append(problem((*keys, name), "required", f"`{name}` is missing", suggestion))
        seen = {**dict.fromkeys(guessed, True), **entries}
        for rule in rules_of(info.cls):
            self.found.extend(each for each in islice(broken(rule, seen, keys), MAX_PROBLEMS) if each.keys not in self._skip)

    def _unknown(self, entries: Mapping[str, Any], info: Fields, keys: Keys) -> set[str]:
        """Tell the fields the type does not have; give those that were probably meant and are not there."""
        guessed: set[str] = set()
        if not (isinstance(info, inspect.StructType) and info.forbid_unknown_fields):
            return guessed
        known = {each.encode_name: each for each in info.fields}
        allowed = (*known, info.tag_field) if info.tag_field else tuple(known)
        for name in entries:
            if name in allowed or (*keys, name) in self._skip:
                continue
            if self.full:
                break
            inside = place_within(name, info)
            near = nearest(name, allowed)
            if inside is not None:
                suggestion = f"it belongs at `{inside}`"
            else:
                suggestion = meant(name, allowed, otherwise="known fields")
                guessed.update({near} - entries.keys() if near is not None else ())
            self.found.append(problem((*keys, name), "unknown_field", f"unknown field `{shown(name)}`", suggestion))
        return guessed

    def _entries(self, data: Any, info: inspect.DictType, keys: Keys) -> None:
        if not isinstance(data, dict):
            self.found.append(wrong_type(keys, "an object", data))
            return
        entries = cast("dict[Any, Any]", data)
        self._length(len(entries), info, keys, "entries")
        for key, each in islice(entries.items(), info.max_length):
            place = (*keys, key) if isinstance(key, str) else keys
            if not isinstance(key, str) or place in self._skip:
                continue
            names = Walk()
            names.value(key, info.key_type, place)
            for bad in names.found:
                self.found.append(problem(place, bad.code, f"as a name {bad.message}", bad.suggestion))
            self.value(each, info.value_type, place)

    def _items(self, data: Any, info: inspect.CollectionType, keys: Keys) -> None:
        if not isinstance(data, list | tuple):
            self.found.append(wrong_type(keys, "a list", data))
            return
        items = cast("list[Any]", data)
        self._length(len(items), info, keys, "entries")
        for position, each in enumerate(islice(items, info.max_length)):
            if isinstance(info, inspect.SetType | inspect.FrozenSetType) and isinstance(each, dict | list):
                self.found.append(problem((*keys, position), "type", f"expected a single value, got {named(cast('Any', each))}"))
            else:
                self.value(each, info.item_type, (*keys, position))

    def _tuple(self, data: Any, info: inspect.TupleType, keys: Keys) -> None:
        if not isinstance(data, list | tuple):
            self.found.append(wrong_type(keys, "a list", data))
            return
        items = cast("list[Any]", data)
        if len(items) != len(info.item_types):
            self.found.append(problem(keys, "length", f"must have exactly {len(info.item_types)} entries, got {len(items)}"))
        for position, (each, type_) in enumerate(zip(items, info.item_types, strict=False)):
            self.value(each, type_, (*keys, position))

    def _converted(self, data: Any, info: inspect.Type, keys: Keys) -> None:
        """Judge what is written as text or number and read as something else by trying to read it."""
        type_ = readable(info)
        if type_ is not None and not accepts(data, type_):
            self.found.append(problem(keys, "type", f"expected {expected(info)}, got {named(data)}"))

    def _length(self, length: int, info: inspect.StrType | inspect.CollectionType | inspect.DictType, keys: Keys, unit: str) -> bool:
        """Tell a length out of bounds; give whether it is within them."""
        if info.max_length is not None and length > info.max_length:
            self.found.append(problem(keys, "length", f"must have at most {info.max_length} {unit}, got {length}"))
            return False
        if info.min_length is not None and length < info.min_length:
            message = "must not be empty" if info.min_length == 1 else f"must have at least {info.min_length} {unit}, got {length}"
            self.found.append(problem(keys, "length", message))
            return False
        return True


def _guess(data: Any, words: Iterable[str]) -> str:
    near = nearest(data, words) if isinstance(data, str) else None
    return f"did you mean `{near}`?" if near is not None else ""


def _matches(pattern: str, data: str) -> bool:
    """Search as msgspec does, but let no newline pass behind the end that `$` means in every other dialect."""
    if pattern.endswith("$") and not pattern.endswith(r"\$"):
        pattern = pattern[:-1] + r"\Z"
    return re.search(pattern, data) is not None
