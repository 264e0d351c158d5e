"""What the log keeps in place and what it keeps once, by content: a large value is taken out and a reference is left. Pure.

A reference is `{"$value": "sha256:<64 hex digits>", "bytes": n}`. It stands for a whole field of an event's data, or for a run's whole
input or output, never deeper. Warning: whatever looks like one and comes from outside is itself taken out, however small; so what
stands in place with a `$value` was always written here, and nobody can forge a reference to a value.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, TypeGuard

import msgspec

from hansa.errors import Damaged
from hansa.runs.model import canonical

INLINE_BYTES = 1024
"""Values up to this many bytes stay in place: a reference and a row of their own would cost more than they save."""
MARK = "$value"
Bodies = Mapping[bytes, bytes | Damaged]
"""Values by their SHA-256: canonical JSON, or why it can't be had."""


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"value": MARK, "size": "bytes"}):
    """What stands in the place of a value."""

    value: Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
    size: Annotated[int, msgspec.Meta(ge=0)]

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the value's canonical JSON."""
        return bytes.fromhex(self.value.removeprefix("sha256:"))


class Columns(msgspec.Struct, frozen=True):
    """Values as the database is given them, side by side, in the order of digests, so that writers of the same values never wait for
    each other in a circle. A body None: it is in the artifact store."""

    digests: list[bytes]
    sizes: list[int]
    bodies: list[str | None]


def columns(taken: Mapping[bytes, bytes], large: Collection[bytes] = ()) -> Columns:
    """Values side by side; those that are `large` without their body."""
    ordered = sorted(taken.items())
    bodies = [None if digest in large else body.decode() for digest, body in ordered]
    return Columns([digest for digest, _ in ordered], [len(body) for _, body in ordered], bodies)


def split_whole(value: Any) -> tuple[bytes, dict[bytes, bytes]]:
    """A value in canonical JSON, or a reference to it; and what was taken out, by SHA-256."""
    taken: dict[bytes, bytes] = {}
    return _in_place(canonical(value), taken), taken


def split_fields(data: Mapping[str, Any]) -> tuple[bytes, dict[bytes, bytes]]:
    """An event's data in canonical JSON with references for its large fields; and what was taken out, by SHA-256."""
    text = canonical(data)
    if len(text) <= INLINE_BYTES and b'"$value"' not in text:
        return text, {}
    taken: dict[bytes, bytes] = {}
    return canonical({name: msgspec.Raw(_in_place(canonical(value), taken)) for name, value in data.items()}), taken


def _in_place(text: bytes, taken: dict[bytes, bytes]) -> bytes:
    if len(text) <= INLINE_BYTES and not (text.startswith(b"{") and b'"$value"' in text):
        return text
    digest = hashlib.sha256(text).digest()
    taken[digest] = text
    return canonical(Reference(f"sha256:{digest.hex()}", len(text)))


def reference(value: Any) -> Reference | None:
    """The reference that stands here; None: the value itself. Raises `Damaged` for a reference that is none of ours."""
    if not is_object(value) or MARK not in value:
        return None
    try:
        return msgspec.convert(value, Reference)
    except msgspec.ValidationError as error:
        raise Damaged(f"a reference in the log can't be read: {error}") from error


def wanted(values: Iterable[Any]) -> set[bytes]:
    """The SHA-256 of every value that is referred to by fields of events, or by inputs and outputs of runs."""
    found = (reference(value) for value in values)
    return {there.digest for there in found if there is not None}


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a decoded JSON value is an object."""
    return isinstance(value, dict)


def join_whole(value: Any, bodies: Bodies) -> Any:
    """The value that stands here or is referred to. Raises `Damaged` when it can't be had."""
    there = reference(value)
    if there is None:
        return value
    body = bodies.get(there.digest)
    if body is None:
        raise Damaged(f"the value {there.value} is missing", hint="Restore it from a backup of the database.")
    if isinstance(body, Damaged):
        raise body
    return msgspec.json.decode(body)


def join_fields(data: dict[str, Any], bodies: Bodies) -> dict[str, Any]:
    """An event's data with every reference replaced by its value."""
    return {name: join_whole(value, bodies) for name, value in data.items()}
