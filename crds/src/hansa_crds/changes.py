"""What may not change from one version of an object to the next: the rules `Immutable`, over both versions.

Takes plain data that `check` has found right. An item of a list is the same one where its name is, not where its position is.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from msgspec import Struct, inspect

from hansa_crds.inspection import bare
from hansa_crds.kinds import KINDS
from hansa_crds.problem import Keys, Problem, problem
from hansa_crds.rules import DistinctItems, Immutable, rules_of


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Problem, ...]:
    """Say everything that may not be as it is in `after`, because it was otherwise in `before`; both are objects of one kind and name."""
    return tuple(_struct(KINDS[after["kind"]].type, before, after, ()))


def _struct(type_: type[Struct], before: Mapping[str, Any], after: Mapping[str, Any], keys: Keys) -> Iterator[Problem]:
    rules = rules_of(type_)
    for rule in rules:
        if isinstance(rule, Immutable) and before.get(rule.field) != after.get(rule.field):
            yield problem((*keys, rule.field), "immutable", f"`{rule.field}` can't be changed", rule.hint)
    names = {rule.field: rule.keys[0] for rule in rules if isinstance(rule, DistinctItems) and rule.named}
    for name, part, many in _parts(type_):
        old, new = before.get(name), after.get(name)
        if many and name in names:
            known = {each[names[name]]: each for each in _items(old)}
            for position, item in enumerate(_items(new)):
                if item[names[name]] in known:
                    yield from _struct(part, known[item[names[name]]], item, (*keys, name, position))
        elif not many and isinstance(old, dict) and isinstance(new, dict):
            yield from _struct(part, cast("dict[str, Any]", old), cast("dict[str, Any]", new), (*keys, name))


@lru_cache(maxsize=256)
def _parts(type_: type[Struct]) -> tuple[tuple[str, type[Struct], bool], ...]:
    """The fields of a type that hold objects, the type of those, and whether there may be many."""
    found: list[tuple[str, type[Struct], bool]] = []
    for field in cast("inspect.StructType", inspect.type_info(type_)).fields:
        kinds = bare(field.type)
        for each in kinds.types if isinstance(kinds, inspect.UnionType) else (kinds,):
            inner = bare(each)
            many = isinstance(inner, inspect.VarTupleType)
            part = bare(inner.item_type) if isinstance(inner, inspect.VarTupleType) else inner
            if isinstance(part, inspect.StructType):
                found.append((field.encode_name, part.cls, many))
    return tuple(found)


def _items(data: Any) -> Sequence[dict[str, Any]]:
    return cast("Sequence[dict[str, Any]]", data or ())
