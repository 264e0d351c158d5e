"""Reads `conformance.yaml`: objects that are right, and the same with one thing changed, with what every judge is to say of them.

Besides, `mutations` gives each object with each of its values in turn replaced by others, for judges to be compared on.
"""

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import yaml
from msgspec import inspect

from hansa.apply.manifests import keys_of
from hansa_crds import API_VERSION, KINDS
from hansa_crds.inspection import bare, values_of

FILE = Path(__file__).with_name("conformance.yaml")
Object = dict[str, Any]
Keys = tuple[str | int, ...]


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the file. `path`: where it is wrong; `says`: what the API server's own rule says of it."""

    of: str
    set: dict[str, Any] = {}
    remove: tuple[str, ...] = ()
    path: str = ""
    says: str = ""
    accepted: bool = False
    kubernetes: str = ""
    because: str = ""

    @property
    def name(self) -> str:
        """What is changed, the same text in every process."""
        return f"{self.of} {json.dumps(self.set) if self.set else ', '.join(self.remove)}"[:120]

    @property
    def object(self) -> Object:
        """The object that is judged."""
        found = objects()[self.of]
        for path, value in self.set.items():
            put(found, keys_of(path), _value(value))
        for path in self.remove:
            drop(found, keys_of(path))
        return found


class Mutation(NamedTuple):
    """An object with one value replaced: where, and by what (None as text: taken out)."""

    kind: str
    keys: Keys
    value: Any
    object: Object


@cache
def _file() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())


def objects() -> dict[str, Object]:
    """The objects that are right, fresh each time, by the name that the file gives them."""
    return {
        name: {"apiVersion": API_VERSION, "metadata": {"name": name, "labels": {"example.org/team": "wool"}}, **copy.deepcopy(each)}
        for name, each in _file()["objects"].items()
    }


def cases() -> list[Case]:
    """All cases of the file."""
    return msgspec.convert(_file()["cases"], list[Case])


def differences() -> dict[str, str]:
    """Why Kubernetes can't say the same, by the name that cases give."""
    return _file()["differences"]


def put(found: Any, keys: Keys, value: Any) -> None:
    """Put a value at a place; objects on the way are made."""
    *way, last = keys
    for key in way:
        found = cast("Object", found).setdefault(str(key), {}) if isinstance(found, dict) else found[key]
    found[last] = value


def drop(found: Any, keys: Keys) -> None:
    """Take a value out."""
    *way, last = keys
    for key in way:
        found = found[key]
    del found[last]


def mutations() -> Iterator[Mutation]:
    """Every object with every value in turn replaced or taken out, within the fields that Hansa has."""
    for found in objects().values():
        info = inspect.type_info(KINDS[found["kind"]].type)
        for keys, part in _places(found, info, ()):
            if keys[:1] == ("spec",):
                for value in _others(part, _at(found, keys)):
                    changed = copy.deepcopy(found)
                    put(changed, keys, value)
                    yield Mutation(found["kind"], keys, value, changed)
                changed = copy.deepcopy(found)
                drop(changed, keys)
                yield Mutation(found["kind"], keys, "None", changed)


def fields(type_: Any, path: str = "") -> Iterator[str]:
    """Every field of a type, as a path without positions."""
    found = _only(inspect.type_info(type_) if not path else type_)
    if isinstance(found, inspect.StructType):
        for each in found.fields:
            place = f"{path}.{each.encode_name}" if path else each.encode_name
            yield place
            yield from fields(each.type, place)
    elif isinstance(found, inspect.VarTupleType):
        yield from fields(found.item_type, path)


def _places(data: Any, info: inspect.Type, keys: Keys) -> Iterator[tuple[Keys, inspect.Type]]:
    """Every place in an object with the type of what is there."""
    found = _only(info)
    if isinstance(found, inspect.StructType):
        for each in found.fields:
            if each.encode_name in data:
                place = (*keys, each.encode_name)
                yield place, each.type
                yield from _places(data[each.encode_name], each.type, place)
    elif isinstance(found, inspect.VarTupleType):
        for position, item in enumerate(data):
            yield (*keys, position), found.item_type
            yield from _places(item, found.item_type, (*keys, position))


def _others(info: inspect.Type, now: Any) -> list[Any]:
    """What may stand in the place of a value: right, wrong by a little, and of another type."""
    found = _only(info)
    match found:
        case inspect.StrType():
            long = found.max_length or 8
            return [1, None, "", "a", "A B", "-", "a" * long, "a" * (long + 1)]
        case inspect.IntType() | inspect.FloatType():
            low, high = cast("int", found.ge), cast("int", found.le)
            step = 1 if isinstance(found, inspect.IntType) else 0.5
            return ["1", None, True, low, low - step, high, high + step if high < 2**50 else high + 1]
        case inspect.BoolType():
            return ["yes", 1, None]
        case inspect.LiteralType():
            return [*values_of(found), str(values_of(found)[0]) + "x", 1, None]
        case inspect.VarTupleType():
            return [[], [*now, *now], {}, "a", [None], [1], (now * 300)[: (found.max_length or 0) + 1]]
        case inspect.DictType():
            return [[], 1, None, {}]
        case inspect.StructType():
            return [[], "a", None, {}, {**now, "unheardOf": 1}]
        case _:
            return []


def _only(info: inspect.Type) -> inspect.Type:
    found = bare(info)
    if isinstance(found, inspect.UnionType):
        return next(each for each in map(bare, found.types) if not isinstance(each, inspect.NoneType))
    return found


def _at(data: Any, keys: Keys) -> Any:
    for key in keys:
        data = data[key]
    return data


def _value(value: Any) -> Any:
    match value:
        case {"$text": int(length)}:
            return "a" * length
        case {"$entries": [int(count), item]}:
            return [json.loads(json.dumps(item).replace("#", str(number))) for number in range(count)]
        case {"$names": [int(count), item]}:
            return {f"n{number}": item for number in range(count)}
        case {"$deep": int(count)}:
            for _ in range(count):
                value = [value]
            return value
        case _:
            return value
