"""The smallest instance of a JSON Schema: required members only, shortest strings, first of every choice.

Knows the keywords that schemas made from types have; not `pattern`, `not` or conditions, whose instances it may miss.
"""

import math
from typing import Any, cast

import msgspec

from hansa_sdk import ProviderRefused

_DEPTH = 64
_OF_FORMAT = {
    "date": "1970-01-01",
    "date-time": "1970-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT0S",
    "email": "a@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-0000-0000-000000000000",
}


def smallest_instance(schema: dict[str, Any]) -> Any:
    """JSON data that obeys `schema`. Raises `ProviderRefused` for a schema that contains itself without an end."""
    return _instance(schema, schema, 0)


def _instance(schema: Any, root: dict[str, Any], depth: int) -> Any:
    if depth > _DEPTH:
        raise ProviderRefused("the output schema needs itself without an end", hint="Make the member that refers back optional.")
    if not isinstance(schema, dict):
        return None
    fields = _merged(cast("dict[str, Any]", schema), root)
    if "const" in fields:
        return fields["const"]
    if fields.get("enum"):
        return fields["enum"][0]
    for union in ("anyOf", "oneOf"):
        if fields.get(union):
            outer = {key: value for key, value in fields.items() if key not in ("anyOf", "oneOf")}
            return min((_instance(_joined(outer, option), root, depth + 1) for option in fields[union]), key=_size)
    match _type(fields):
        case "object":
            return _object(fields, root, depth)
        case "array":
            return [_instance(item, root, depth + 1) for item in _items(fields)]
        case "string":
            return _OF_FORMAT.get(fields.get("format", ""), "").ljust(fields.get("minLength", 0), "x")
        case "integer":
            return int(_number(fields, 1))
        case "number":
            number = _number(fields, 0)
            return int(number) if number == int(number) else number
        case "boolean":
            return False
        case _:
            return None


def _merged(fields: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """The schema with its reference followed and its `allOf` poured in."""
    for _ in range(_DEPTH):
        if "$ref" in fields:
            target = _target(str(fields["$ref"]), root)
            fields = _joined({key: value for key, value in fields.items() if key != "$ref"}, target)
        elif fields.get("allOf"):
            parts: list[Any] = fields["allOf"]
            fields = {key: value for key, value in fields.items() if key != "allOf"}
            for part in parts:
                fields = _joined(fields, part)
        else:
            return fields
    raise ProviderRefused("the output schema refers to itself", hint="Break the circle of $ref.")


def _joined(one: dict[str, Any], other: Any) -> dict[str, Any]:
    if not isinstance(other, dict):
        return one
    second = cast("dict[str, Any]", other)
    joined = {**one, **second}
    if "properties" in one and "properties" in second:
        joined["properties"] = {**one["properties"], **second["properties"]}
    if "required" in one and "required" in second:
        joined["required"] = [*one["required"], *second["required"]]
    return joined


def _target(reference: str, root: dict[str, Any]) -> Any:
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            found = cast("dict[str, Any]", found).get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    if found is None:
        raise ProviderRefused(f"the output schema refers to {reference!r}, which it does not hold")
    return found


def _type(fields: dict[str, Any]) -> str | None:
    named = fields.get("type")
    if isinstance(named, list):
        names = cast("list[str]", named)
        return "null" if "null" in names else names[0]
    if isinstance(named, str):
        return named
    if "properties" in fields or "required" in fields:
        return "object"
    return "array" if "items" in fields or "minItems" in fields else None


def _object(fields: dict[str, Any], root: dict[str, Any], depth: int) -> dict[str, Any]:
    properties: dict[str, Any] = fields.get("properties", {})
    others = fields.get("additionalProperties", True)
    return {name: _instance(properties.get(name, others), root, depth + 1) for name in fields.get("required", ())}


def _items(fields: dict[str, Any]) -> list[Any]:
    count = fields.get("minItems", 0)
    prefix: list[Any] = fields.get("prefixItems", [])
    return [*prefix, *[fields.get("items", True)] * max(0, count - len(prefix))][:count]


def _number(fields: dict[str, Any], step_of_type: float) -> float:
    """The number nearest to zero within the bounds."""
    step = fields.get("multipleOf") or step_of_type
    low, high = fields.get("minimum", -math.inf), fields.get("maximum", math.inf)
    gap = step or 1e-9
    if "exclusiveMinimum" in fields:
        low = max(low, fields["exclusiveMinimum"] + gap)
    if "exclusiveMaximum" in fields:
        high = min(high, fields["exclusiveMaximum"] - gap)
    if low <= 0 <= high:
        return 0
    bound = low if low > 0 else high
    if not step:
        return bound
    return (math.ceil(bound / step) if low > 0 else math.floor(bound / step)) * step


def _size(value: Any) -> int:
    return len(msgspec.json.encode(value))
