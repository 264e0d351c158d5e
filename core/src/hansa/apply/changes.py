"""What differs between an object as it stands and as it shall be: field by field, in the order of their paths. Pure."""

from collections.abc import Iterator
from typing import Any, cast

import msgspec

from hansa.apply.model import Change
from hansa_crds import Keys
from hansa_crds.problem import path_of

MOST = 200
"""Changes of one object that are told one by one; of more the whole `spec` is one change."""


def changes(before: str | None, after: bytes) -> tuple[Change, ...]:
    """Between two manifests as JSON; `before` None: it is not there, and all of it is new, which nobody needs to be told."""
    if before is None:
        return ()
    was, now = msgspec.json.decode(before), msgspec.json.decode(after)
    found = tuple(_differences((), was, now))
    if len(found) <= MOST:
        return found
    return tuple(Change(name, was.get(name), now.get(name)) for name in ("metadata", "spec") if was.get(name) != now.get(name))


def _differences(keys: Keys, before: Any, after: Any) -> Iterator[Change]:
    if before == after and type(before) is type(after):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        old, new = cast("dict[str, Any]", before), cast("dict[str, Any]", after)
        for key in sorted(old.keys() | new.keys()):
            yield from _differences((*keys, key), old.get(key), new.get(key))
    elif isinstance(before, list) and isinstance(after, list):
        was, now = cast("list[Any]", before), cast("list[Any]", after)
        for number in range(max(len(was), len(now))):
            pair = (was[number] if number < len(was) else None, now[number] if number < len(now) else None)
            yield from _differences((*keys, number), *pair)
    else:
        yield Change(path_of(keys), before, after)
