"""What msgspec's description of a type says, in words and as answers to small questions. Knows no data of its own."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, cast
from uuid import UUID

import msgspec
from msgspec import Meta, inspect

from hansa_crds.problem import named

Fields = inspect.StructType | inspect.TypedDictType | inspect.DataclassType
Number = inspect.IntType | inspect.FloatType
Choice = inspect.LiteralType | inspect.EnumType

_LISTS = (inspect.CollectionType, inspect.TupleType, inspect.NamedTupleType)
_OBJECTS = (inspect.StructType, inspect.TypedDictType, inspect.DataclassType, inspect.DictType)
_BINARY = (inspect.BytesType, inspect.ByteArrayType, inspect.MemoryViewType)
_TIMES = (inspect.DateTimeType, inspect.DateType, inspect.TimeType, inspect.TimeDeltaType)

_WORDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (inspect.IntType, "an integer"),
    (inspect.FloatType, "a number"),
    (inspect.BoolType, "a boolean"),
    (inspect.StrType, "a string"),
    (_OBJECTS, "an object"),
    (_LISTS, "a list"),
    (inspect.DateTimeType, "a time such as 2030-01-31T12:00:00Z"),
    (inspect.DateType, "a date such as 2030-01-31"),
    (inspect.TimeType, "a time of day such as 12:00:00Z"),
    (inspect.TimeDeltaType, "a length of time such as PT30S"),
    (inspect.UUIDType, "a UUID"),
    (inspect.DecimalType, "a decimal number"),
    (_BINARY, "binary data in base64"),
)

_JSON_WORDS = {"an integer", "a number", "a boolean", "an object", "a list"}
_WRITTEN: tuple[tuple[type | tuple[type, ...], set[str]], ...] = (
    (bool, {"a boolean"}),
    (int, {"an integer", "a number", "a decimal number"}),
    (float, {"a number", "a decimal number"}),
    (str, {words for _, words in _WORDS} - _JSON_WORDS),
    (dict, {"an object"}),
    ((list, tuple), {"a list"}),
)
_READ: tuple[tuple[type, type], ...] = (
    (inspect.DateType, date),
    (inspect.TimeDeltaType, timedelta),
    (inspect.UUIDType, UUID),
    (inspect.DecimalType, Decimal),
)


def bare(info: inspect.Type) -> inspect.Type:
    """Take description and other notes off a type."""
    return bare(info.type) if isinstance(info, inspect.Metadata) else info


def described(info: inspect.Type) -> str:
    """Give the description of a type, or nothing."""
    schema = cast("dict[str, Any] | None", getattr(info, "extra_json_schema", None))
    return str((schema or {}).get("description", ""))


def formatted(info: inspect.Type) -> str:
    """Give the format of a text (`date-time`), or nothing."""
    schema = cast("dict[str, Any] | None", getattr(info, "extra_json_schema", None))
    return str((schema or {}).get("format", ""))


def values_of(info: Choice) -> list[Any]:
    """Give the values a choice is among."""
    return list(info.values) if isinstance(info, inspect.LiteralType) else [each.value for each in cast("Any", info.cls)]


def place_within(name: str, info: inspect.Type, depth: int = 3) -> str | None:
    """Find a field of this name in the objects inside a type, as a path; lists and dicts are not looked into."""
    found = bare(info)
    if isinstance(found, inspect.UnionType):
        return next(filter(None, (place_within(name, each, depth) for each in found.types)), None)
    if not isinstance(found, inspect.StructType) or depth == 0:
        return None
    for field in found.fields:
        if field.encode_name == name:
            return name
    for field in found.fields:
        inner = place_within(name, field.type, depth - 1)
        if inner is not None:
            return f"{field.encode_name}.{inner}"
    return None


def expected(info: inspect.Type) -> str:
    """Name what a type is written as."""
    if isinstance(info, inspect.LiteralType | inspect.EnumType):
        return named(next((each for each in values_of(info) if each is not None), None))
    return next((words for kind, words in _WORDS if isinstance(info, kind)), "another value")


def fits(data: Any, info: inspect.Type) -> bool:
    """Tell whether data is of the JSON type that a type is written in; of a union at most one member fits."""
    if isinstance(info, inspect.AnyType):
        return True
    words = next((words for kind, words in _WRITTEN if isinstance(data, kind)), None)
    return expected(info) in words if words is not None else (readable(info) is not None and accepts(data, readable(info)))


def readable(info: inspect.Type) -> Any:
    """Give the Python type that msgspec reads from text or numbers, or None when only the whole conversion can tell."""
    if isinstance(info, inspect.DateTimeType):
        return Annotated[datetime, Meta(tz=info.tz)]
    if isinstance(info, inspect.TimeType):
        return Annotated[time, Meta(tz=info.tz)]
    if isinstance(info, inspect.BytesType | inspect.ByteArrayType | inspect.MemoryViewType):
        return Annotated[bytes, Meta(min_length=info.min_length, max_length=info.max_length)]
    return next((type_ for kind, type_ in _READ if isinstance(info, kind)), None)


def accepts(data: Any, type_: Any) -> bool:
    """Tell whether msgspec reads data as a type."""
    try:
        msgspec.convert(data, type_, strict=True)
    except msgspec.ValidationError:
        return False
    return True


def bounds(info: Number) -> str:
    """Write the range of a number in words."""
    if info.ge is not None and info.le is not None:
        return f"from {info.ge} to {info.le}"
    each = ((info.ge, "at least"), (info.gt, "more than"), (info.le, "at most"), (info.lt, "less than"))
    return " and ".join(f"{words} {bound}" for bound, words in each if bound is not None)
