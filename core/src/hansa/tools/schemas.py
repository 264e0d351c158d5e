"""Arguments judged by a JSON Schema that a stranger wrote: the schema itself is judged first, and nothing is fetched for it.

Also `x-mcp-header`: arguments that a schema wants to see in headers of the request too. Warning: patterns run with a bound on
backtracking, and a schema has a bound on its size; both are what keeps a bad schema from holding up the process.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, cast

import jsonschema_rs
import msgspec

MAX_SCHEMA_BYTES = 65_536
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)
_MIRRORED = "x-mcp-header"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PLAIN = re.compile(r"([!-~]([ -~]*[!-~])?)?")
_MAPS = frozenset({"$defs", "definitions", "patternProperties", "dependentSchemas"})
_VALUES = frozenset({"const", "default", "enum", "examples"})


def flaw(schema: dict[str, Any]) -> str:
    """Why a schema can't judge arguments; empty: it can."""
    size = len(msgspec.json.encode(schema))
    if size > MAX_SCHEMA_BYTES:
        return f"its input schema has {size} bytes, the most is {MAX_SCHEMA_BYTES}"
    if schema.get("type") != "object":
        return "its input schema is not of type object"
    try:
        _validator(schema)
        _mirrored(schema)
    except (ValueError, RecursionError) as error:
        return f"its input schema is not valid: {_line(str(error))}"
    return ""


def wrong_arguments(schema: dict[str, Any], arguments: dict[str, Any]) -> str:
    """What is wrong with arguments, for the model; empty: nothing. The first five flaws."""
    return wrong_value(schema, arguments)


def wrong_value(schema: dict[str, Any], value: Any) -> str:
    """The same of any JSON value."""
    try:
        errors = [
            f"{_line(error.message)} (at {'.'.join(str(part) for part in error.instance_path) or 'the top'})"
            for error in islice(_validator(schema).iter_errors(value), 5)
        ]
    except (ValueError, RecursionError) as error:
        return f"the schema can't be used: {_line(str(error))}"
    return "; ".join(errors)


def mirrored_headers(schema: dict[str, Any], arguments: dict[str, Any]) -> dict[str, str]:
    """The `Mcp-Param-*` headers of a call whose arguments obey the schema."""
    headers: dict[str, str] = {}
    for name, path in _mirrored(schema).items():
        value: Any = arguments
        for key in path:
            value = cast("dict[str, Any]", value).get(key) if isinstance(value, dict) else None
        if value is not None:
            headers[f"Mcp-Param-{name}"] = _header_value(value)
    return headers


def _validator(schema: dict[str, Any]) -> Any:
    return jsonschema_rs.validator_for(schema, offline=True, pattern_options=_PATTERNS)


def _mirrored(schema: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Header names and the paths of the arguments they mirror. Raises ValueError for an annotation that the protocol forbids."""
    found: dict[str, tuple[str, ...]] = {}
    for path, part in _annotated(schema, ()):
        name = part[_MIRRORED]
        if not path:
            raise ValueError(f"{_MIRRORED} stands where no single argument is meant")
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ValueError(f"{_MIRRORED} of {'.'.join(path)} is not the name of a header")
        if part.get("type") not in ("string", "integer", "boolean"):
            raise ValueError(f"{_MIRRORED} of {'.'.join(path)} is for strings, integers and booleans only")
        if name.lower() in (other.lower() for other in found):
            raise ValueError(f"{_MIRRORED} {name!r} stands there twice")
        found[name] = path
    return found


def _annotated(part: Any, path: tuple[str, ...] | None) -> Iterator[tuple[tuple[str, ...] | None, Mapping[str, Any]]]:
    """Schemas with the annotation, and where: None when another way than `properties` alone leads there."""
    if isinstance(part, list):
        for each in cast("list[Any]", part):
            yield from _annotated(each, None)
    if not isinstance(part, dict):
        return
    fields = cast("dict[str, Any]", part)
    if _MIRRORED in fields:
        yield path, fields
    for keyword, value in fields.items():
        if keyword == "properties" and isinstance(value, dict):
            for name, inner in cast("dict[str, Any]", value).items():
                yield from _annotated(inner, None if path is None else (*path, name))
        elif keyword in _MAPS and isinstance(value, dict):
            for inner in cast("dict[str, Any]", value).values():
                yield from _annotated(inner, None)
        elif keyword not in _VALUES:
            yield from _annotated(value, None)


def _header_value(value: Any) -> str:
    text = ("true" if value else "false") if isinstance(value, bool) else str(int(value)) if isinstance(value, int | float) else str(value)
    if not _PLAIN.fullmatch(text) or (text.startswith("=?base64?") and text.endswith("?=")):
        return f"=?base64?{base64.b64encode(text.encode()).decode()}?="
    return text


def _line(text: str) -> str:
    return text.splitlines()[0][:300] if text else ""
