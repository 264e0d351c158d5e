"""Kubernetes' view of the kinds: a CustomResourceDefinition with a structural schema for each.

Knows the types, the rules and what Kubernetes allows in such a schema: no references, no unions, defaults only here. Rules that
span fields are in CEL, by `expressions.py`.
"""

import json
from typing import Any, cast

from msgspec import NODEFAULT, Struct, inspect

from hansa_crds.expressions import Expression, expressions
from hansa_crds.inspection import bare, described, formatted
from hansa_crds.kinds import Kind
from hansa_crds.parts import GROUP, LABEL_PATTERN, PATTERN_WORDS, VERSION
from hansa_crds.rules import DistinctItems, DistinctNames, Rule, SchemaObject, rules_of
from hansa_crds.status import Status

Schema = dict[str, Any]

_FREE = "x-kubernetes-preserve-unknown-fields"
_RULES = "x-kubernetes-validations"
_LIST = "x-kubernetes-list-type"
_KEYS = "x-kubernetes-list-map-keys"


def definition(kind: Kind) -> Schema:
    """Give the CustomResourceDefinition of a kind."""
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "selectableFields": [{"jsonPath": each} for each in kind.selectable],
        "additionalPrinterColumns": [
            {"name": each.name, "type": each.type, "jsonPath": each.path, **({"priority": 1} if each.wide else {})} for each in kind.columns
        ],
        "schema": {"openAPIV3Schema": _object_schema(kind)},
    }
    names: Schema = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": kind.singular,
        "shortNames": list(kind.short_names),
        "categories": ["hansa"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": kind.scope, "names": names, "versions": [version]},
    }


def structural(info: inspect.Type) -> Schema:
    """Give the structural schema of a type."""
    found = bare(info)
    text = described(info)
    head: Schema = _given(description=text or None, format=formatted(info) or None)
    match found:
        case inspect.UnionType():
            (only,) = (each for each in found.types if not isinstance(bare(each), inspect.NoneType))
            return head | structural(only)
        case inspect.StrType():
            return head | _given(type="string", minLength=found.min_length, maxLength=found.max_length, pattern=found.pattern)
        case inspect.IntType():
            return head | _given(type="integer", format="int64", minimum=found.ge, maximum=found.le)
        case inspect.FloatType():
            return head | _given(type="number", minimum=found.ge, maximum=found.le)
        case inspect.BoolType():
            return head | {"type": "boolean"}
        case inspect.LiteralType():
            return head | {"type": "string", "enum": list(found.values)}
        case inspect.AnyType():
            return head | {"nullable": True, _FREE: True}
        case inspect.DictType():
            bound = _given(type="object", maxProperties=found.max_length)
            free = isinstance(bare(found.value_type), inspect.AnyType)
            names = _names(bare(found.key_type))
            return head | bound | ({_FREE: True} if free else {"additionalProperties": structural(found.value_type), **names})
        case inspect.VarTupleType():
            bound = _given(type="array", minItems=found.min_length, maxItems=found.max_length)
            return head | bound | {_LIST: "atomic", "items": structural(found.item_type)}
        case inspect.StructType():
            return head | _struct(found)
        case _:
            raise TypeError(f"a structural schema cannot say {found}")


def _struct(info: inspect.StructType) -> Schema:
    properties: Schema = {}
    for field in info.fields:
        default = field.default
        if isinstance(default, Struct):
            default = cast("Any", {})
        plain = isinstance(default, bool | int | float | dict) or (isinstance(default, str) and default)
        extra: Schema = {"default": default} if field.default is not NODEFAULT and plain else {}
        properties[field.encode_name] = structural(field.type) | extra
    required = [each.encode_name for each in info.fields if each.required]
    schema: Schema = {"type": "object", **({"required": required} if required else {}), "properties": properties}
    for rule in rules_of(info.cls):
        _apply(rule, schema)
    return schema


def _names(info: inspect.Type) -> Schema:
    """Write what the names of an object's entries look like: a schema itself says that of values only."""
    if not isinstance(info, inspect.StrType) or info.pattern is None:
        return {}
    test = f"self.all(name, name.size() <= {info.max_length} && name.matches({json.dumps(info.pattern)}))"
    message = f"a name must have at most {info.max_length} characters and be {PATTERN_WORDS[info.pattern].replace('`', '')}"
    return {_RULES: [{"rule": test, "message": message, "reason": "FieldValueInvalid"}]}


def _apply(rule: Rule, schema: Schema) -> None:
    """Write a rule into the schema of the object it holds for."""
    properties = schema["properties"]
    for found in expressions(rule):
        place = properties[found.on] if found.on else schema
        place.setdefault(_RULES, []).append(_said(found))
    match rule:
        case DistinctItems(keys=()):
            properties[rule.field][_LIST] = "set"
        case DistinctItems(named=True):
            properties[rule.field] |= {_LIST: "map", _KEYS: list(rule.keys)}
        case DistinctNames():
            properties[rule.field] |= {_LIST: "map", _KEYS: [rule.name]}
            properties[rule.field]["items"]["properties"][rule.more][_LIST] = "set"
        case SchemaObject():
            properties[rule.field] |= {"required": ["type"], "properties": {"type": {_FREE: True}}}
        case _:
            return


def _said(found: Expression) -> Schema:
    return {"rule": found.rule, "message": found.message, "reason": found.reason} | ({"fieldPath": found.at} if found.at else {})


def _object_schema(kind: Kind) -> Schema:
    info = inspect.type_info(kind.type)
    if not isinstance(info, inspect.StructType):
        raise TypeError(f"{kind.kind} is not a Struct")
    spec = next(each for each in info.fields if each.encode_name == "spec")
    default: Schema = {} if spec.required else {"default": {}}
    rules = [_said(each) for rule in rules_of(kind.type) for each in expressions(rule)]
    return {
        "description": (kind.type.__doc__ or "").strip(),
        "type": "object",
        **({"required": ["spec"]} if spec.required else {}),
        **({_RULES: rules} if rules else {}),
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 63, "pattern": LABEL_PATTERN}}},
            "spec": structural(spec.type) | default,
            "status": _status(kind.status),
        },
    }


def _status(type_: type[Status]) -> Schema:
    """Give the schema of what a controller reports; -1 until it has, or tools would call a new object ready."""
    said: Schema = {"description": "What the platform reports of the object.", "default": {"observedGeneration": -1}}
    return structural(inspect.type_info(type_)) | said


def _given(**fields: Any) -> Schema:
    return {key: each for key, each in fields.items() if each is not None}
