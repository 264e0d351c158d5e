"""What an object may not hold, whatever its kind, to be kept at all."""

from typing import Any, cast

from hansa.errors import FieldError
from hansa_crds import Keys
from hansa_crds.problem import path_of


def unkeepable(value: Any, keys: Keys = ()) -> tuple[FieldError, ...]:
    """Texts that the database can keep and then not look into: those with a NUL character."""
    match value:
        case str():
            wrong = "\x00" in value
            return (FieldError(path_of(keys), "pattern", "holds a NUL character, which no manifest may"),) if wrong else ()
        case list():
            items = cast(list[Any], value)
            return tuple(error for number, item in enumerate(items) for error in unkeepable(item, (*keys, number)))
        case dict():
            fields = cast(dict[str, Any], value)
            inside = [error for key, item in fields.items() for error in unkeepable(item, (*keys, key))]
            return (*(error for key in fields for error in unkeepable(key, (*keys, key))), *inside)
        case _:
            return ()
