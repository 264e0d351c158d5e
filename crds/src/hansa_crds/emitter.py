"""Plain data as YAML text: block style, keys in the order given, the same text every time. Knows nothing of objects.

A string is written plain only where no reader of YAML 1.1 or 1.2 could take it for something else; otherwise in double
quotes, as JSON writes it.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, cast

_PLAIN = re.compile(r"\.?[A-Za-z_$/][A-Za-z0-9_./$-]*( [A-Za-z0-9_./$-]+)*")
_TAKEN = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n", ".nan", ".inf"})


def emit(data: dict[str, Any]) -> str:
    """Write an object."""
    return "\n".join(_block(data, "")) + "\n"


def _block(data: Any, indent: str) -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in cast("dict[str, Any]", data).items():
            yield from _entry(f"{indent}{_scalar(key)}:", value, indent + "  ")
    else:
        for value in cast("list[Any]", data):
            yield from _item(value, indent)


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        yield head
        yield from _block(value, indent if isinstance(value, dict) else indent[:-2])
    else:
        yield f"{head} {_scalar(value)}"


def _item(value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        first, *rest = _block(value, indent + "  ")
        yield f"{indent}- {first.removeprefix(indent + '  ')}"
        yield from rest
    else:
        yield f"{indent}- {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _TAKEN:
        return value
    if isinstance(value, float) and "." not in repr(value):
        return repr(value).replace("e", ".0e")  # YAML 1.1 reads 1e+16 as text
    return json.dumps(value, ensure_ascii=isinstance(value, str) and not value.isprintable())
