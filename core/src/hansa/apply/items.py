"""The objects of a request as they are sent, what is answered for each, and what is said of those that can't even be looked at."""

from typing import Any, cast

import msgspec

from hansa.errors import FieldError
from hansa_crds import Keys
from hansa_crds.problem import path_of


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an object was written: file, line and column (from 1)."""

    file: str = ""
    line: int = 0
    column: int = 0


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One object to apply, as decoded from YAML or JSON."""

    manifest: Any
    source: Source | None = None


class Applied(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one object. `action`: created, configured, unchanged or failed; `note`: what is not right with it nevertheless;
    `tenant`: whose it is, if not the caller's.
    """

    kind: str
    name: str
    action: str
    generation: int | None = None
    revision: int | None = None
    note: str = ""
    tenant: str = ""
    errors: tuple[FieldError, ...] = ()


class _Name(msgspec.Struct):
    name: str = ""


class _Head(msgspec.Struct):
    """As much of a manifest as is needed to name it in an answer."""

    kind: str = ""
    metadata: _Name = msgspec.field(default_factory=_Name)


def failed(item: Item, errors: tuple[FieldError, ...]) -> Applied:
    """What is answered for an object that is refused."""
    try:
        head = msgspec.convert(item.manifest, _Head)
    except msgspec.ValidationError:
        head = _Head()
    source = item.source
    if source is not None:
        errors = tuple(msgspec.structs.replace(e, file=source.file, line=source.line, column=source.column) for e in errors)
    return Applied(head.kind, head.metadata.name, "failed", errors=errors)


def duplicate(first: Item) -> FieldError:
    """What is said of an object that stood in the request already."""
    where = f"{first.source.file}:{first.source.line}" if first.source else "earlier in this request"
    return FieldError("metadata.name", "duplicate", f"an object of this kind and name stands already at {where}")


def unkeepable(value: Any, keys: Keys) -> tuple[FieldError, ...]:
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
