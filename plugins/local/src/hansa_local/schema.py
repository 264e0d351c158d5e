"""JSON Schemas as llama.cpp's grammars can take them: what they can't express is dropped, what they leave open is narrowed.

Pure functions. Dropping matters: a schema that does not compile constrains nothing, silently. The caller of the provider
validates the answer against the whole schema anyway, so a looser grammar costs a second try, not a wrong answer.
"""

import itertools
import math
import re
import warnings
from collections.abc import Callable
from typing import Any, cast

import msgspec

_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_SIZES = frozenset({"minItems", "maxItems", "minLength", "maxLength"})
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_ONES = frozenset({"items", "additionalProperties"})
_LARGEST_SIZE = 1_000_000
_IRREGULAR = re.compile(r"\(\?(?!:)|\\[bBAzZGkpP1-9]|[*+?}]\+")
"""In a pattern: looking around, naming groups, boundaries, back references, possessive repetition."""
_INNER_ANCHOR = re.compile(r"(?<!^)(?<![\[\\])\^|(?<!\\)\$(?!$)")
_MOST_CHOICES = 64


def loosened(schema: Any, *, base: str = "#") -> dict[str, Any]:
    """`schema` without what a grammar can't express. `base` is the pointer under which it will stand in a larger one."""
    root = _loosened(schema, schema, base)
    return root if _composes(schema) else _narrowed(root)


def choices(schema: dict[str, Any]) -> tuple[str, ...]:
    """Every answer that a schema of enumerations allows, as compact JSON; none for a schema that allows more than a few.

    Objects count with all their properties given in the order of the schema.
    """
    found = _choices(schema)
    return tuple(msgspec.json.encode(value).decode() for value in found) if found else ()


def _loosened(schema: Any, root: Any, base: str) -> dict[str, Any]:
    if not isinstance(schema, dict):
        return {}
    fields = cast("dict[str, Any]", schema)
    reference = fields.get("$ref")
    if reference is not None and not _resolves(reference, root):
        return {}
    kept: dict[str, Any] = {}
    for key, value in fields.items():
        if key == "$ref":
            kept[key] = base + value[1:]
        elif key in _MAPS and isinstance(value, dict):
            kept[key] = _members(key, cast("dict[str, Any]", value), root, base)
        elif key in _LISTS and isinstance(value, list):
            options = [_loosened(option, root, base) for option in cast("list[Any]", value) if option is not False]
            # The grammar can't count how many options hold.
            kept["anyOf" if key == "oneOf" else key] = options
        elif key in _ONES:
            kept[key] = value if isinstance(value, bool) else _loosened(value, root, base)
        elif _is_kept(key, value):
            kept[key] = value
    if "type" in kept and isinstance(kept["type"], list):
        kept["type"] = [name for name in cast("list[Any]", kept["type"]) if name in _TYPES]
    return {key: value for key, value in kept.items() if value != [] or key not in {"allOf", "anyOf", "type"}}


def _members(key: str, members: dict[str, Any], root: Any, base: str) -> dict[str, Any]:
    regular: Callable[[str], bool] = _is_regular if key == "patternProperties" else lambda name: True
    return {name: _loosened(member, root, base) for name, member in members.items() if member is not False and regular(name)}


def _is_kept(key: str, value: Any) -> bool:
    if key in _SIZES:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_SIZE
    if key in _BOUNDS:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    match key:
        case "type":
            return isinstance(value, list) or value in _TYPES
        case "enum":
            return isinstance(value, list) and value != []
        case "pattern":
            return isinstance(value, str) and _is_regular(value)
        case "required":
            return isinstance(value, list)
        case "format":
            return isinstance(value, str)  # one it does not know, it ignores
        case _:
            return key == "const"


def _is_regular(pattern: str) -> bool:
    try:
        with warnings.catch_warnings():
            # It says that `[[` may mean something else one day; the pattern is not ours to change.
            warnings.simplefilter("ignore", FutureWarning)
            re.compile(pattern)
    except re.error:
        return False
    return not _IRREGULAR.search(pattern) and not _INNER_ANCHOR.search(pattern)


def _resolves(reference: Any, root: Any) -> bool:
    """Whether a reference is a pointer to something in `root`; anchors and other documents are beyond a grammar."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return False
    found: Any = root
    for part in reference.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = cast("dict[str, Any]", found).get(name) if isinstance(found, dict) else None
    return isinstance(found, dict)


def _composes(schema: Any) -> bool:
    """Whether properties are put together from several places, where closing one of them would shut out the others'."""
    if isinstance(schema, list):
        return any(_composes(part) for part in cast("list[Any]", schema))
    if not isinstance(schema, dict):
        return False
    fields = cast("dict[str, Any]", schema)
    if "allOf" in fields or ("properties" in fields and fields.keys() & {"anyOf", "oneOf", "$ref"}):
        return True
    return any(_composes(value) for value in fields.values())


def _narrowed(schema: dict[str, Any]) -> dict[str, Any]:
    """An object that names its properties gets no others: a small model would go on inventing some."""
    narrow: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _MAPS:
            narrow[key] = {name: _narrowed(member) for name, member in value.items()}
        elif key in _LISTS:
            narrow[key] = [_narrowed(option) for option in value]
        else:
            narrow[key] = _narrowed(cast("dict[str, Any]", value)) if key in _ONES and isinstance(value, dict) else value
    named: dict[str, Any] | None = schema.get("properties")
    if named is not None and "patternProperties" not in schema and set(schema.get("required", ())) <= named.keys():
        narrow.setdefault("additionalProperties", False)
    return narrow


def _choices(schema: dict[str, Any]) -> list[Any]:
    if "const" in schema:
        return [schema["const"]]
    if "enum" in schema:
        values: list[Any] = schema["enum"]
        return values if len(values) <= _MOST_CHOICES else []
    match schema.get("type"):
        case "boolean":
            return [True, False]
        case "null":
            return [None]
        case "object" if "properties" in schema and not schema.keys() & (_LISTS | {"$ref", "patternProperties"}):
            properties: dict[str, dict[str, Any]] = schema["properties"]
            if set(schema.get("required", ())) != properties.keys():
                return []
            each = [_choices(member) for member in properties.values()]
            if math.prod(len(values) for values in each) > _MOST_CHOICES:
                return []
            return [dict(zip(properties, values, strict=True)) for values in itertools.product(*each)]
        case _:
            return []
