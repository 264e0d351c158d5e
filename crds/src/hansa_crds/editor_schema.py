"""JSON Schema 2020-12 of the kinds, for editors that complete and check YAML while it is written.

It says what validation says, as far as JSON Schema can; `hansa_crds.check` has the last word.
"""

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from hansa_crds.kinds import Kind
from hansa_crds.rules import SCHEMA_TYPES, DistinctItems, ExactlyOne, NotWith, Once, OnlyWith, Rule, SchemaObject, rules_of

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/$defs/"


def editor_schema(kinds: Sequence[Kind]) -> Schema:
    """Give one schema for files that hold objects of these kinds."""
    refs, parts = msgspec.json.schema_components([each.type for each in kinds], ref_template=_REF + "{name}")
    defs = {name: _ruled(part, _struct_named(name, kinds)) for name, part in sorted(parts.items())}
    choice: Schema = dict(refs[0]) if len(kinds) == 1 else {"oneOf": list(refs)}
    title = kinds[0].kind if len(kinds) == 1 else "An object of Hansa"
    return {"$schema": DIALECT, "title": title, **choice, "$defs": defs}


def _struct_named(name: str, kinds: Sequence[Kind]) -> type:
    """Find the Struct that a definition was made from, among those the kinds are made of."""
    waiting: list[Any] = [each.type for each in kinds]
    seen: set[type] = set()
    while waiting:
        type_ = waiting.pop()
        if type_ in seen:
            continue
        seen.add(type_)
        if type_.__name__ == name:
            return type_
        for field in cast("msgspec.inspect.StructType", msgspec.inspect.type_info(type_)).fields:
            waiting += _structs(field.type)
    raise LookupError(name)


def _structs(info: msgspec.inspect.Type) -> list[type]:
    match info:
        case msgspec.inspect.Metadata():
            return _structs(info.type)
        case msgspec.inspect.UnionType():
            return [found for each in info.types for found in _structs(each)]
        case msgspec.inspect.VarTupleType():
            return _structs(info.item_type)
        case msgspec.inspect.DictType():
            return _structs(info.value_type)
        case msgspec.inspect.StructType():
            return [info.cls]
        case _:
            return []


def _ruled(part: Schema, type_: type) -> Schema:
    schema = {key: each for key, each in part.items() if key != "required" or each}
    for rule in rules_of(type_):
        _apply(rule, schema)
    return schema


def _apply(rule: Rule, schema: Schema) -> None:
    """Write a rule into the schema of the object it holds for, where JSON Schema can say it."""
    properties = schema["properties"]
    match rule:
        case OnlyWith():
            schema.setdefault("dependentRequired", {})[rule.field] = [rule.other]
        case NotWith():
            both = {each: {"not": {"type": "null"}} for each in (rule.field, rule.other)}
            schema.setdefault("allOf", []).append({"not": {"required": list(both), "properties": both}})
        case ExactlyOne():
            schema["oneOf"] = [{"required": [each], "properties": {each: {"not": {"type": "null"}}}} for each in rule.fields]
        case DistinctItems(keys=()):
            properties[rule.field]["uniqueItems"] = True
        case Once():
            escaped = rule.text.replace("{", r"\{").replace("}", r"\}")
            properties[rule.field]["pattern"] = escaped
        case SchemaObject():
            types: Schema = {"enum": list(SCHEMA_TYPES)}
            said = {"anyOf": [types, {"type": "array", "minItems": 1, "items": types}]}
            properties[rule.field] |= {"required": ["type"], "properties": {"type": said}}
        case _:
            return
