"""What files say: which objects, where, and what is wrong with them; light enough to be kept for all files of a large repository.

A file is `broken` when it can't be said which objects it holds. Nothing is concluded from what a broken file no longer says.
"""

import re
from collections.abc import Iterable, Mapping

import msgspec

from hansa.apply.manifests import Manifest, parse
from hansa.apply.model import ORDER
from hansa.apply.repository.model import File
from hansa.apply.sync.model import Item, Name
from hansa.errors import FieldError
from hansa_crds import KINDS

BATCH_BYTES = 256 * 1024
"""Of one request; the control plane refuses bodies beyond 1 MiB."""
BATCH_OBJECTS = 100

SILENCE = "there are no objects in any file; nothing is deleted for that"

_WORDS = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_IDENTITY = frozenset({"", "apiVersion", "kind", "metadata", "metadata.name", "metadata.namespace"})
_RANK = {kind: rank for rank, kind in enumerate(ORDER)}


class Entry(msgspec.Struct, frozen=True):
    """One object of a file: its name, where that stands, and what is wrong with it by the rules of its kind."""

    name: Name
    place: tuple[int, int]
    errors: tuple[FieldError, ...] = ()


class Contents(msgspec.Struct, frozen=True):
    """What one file says. `words`: every word of a broken file, for one of them may be the name of an object that it still holds.
    `why`: what is told of objects that are kept because it is broken."""

    id: str
    entries: tuple[Entry, ...] = ()
    errors: tuple[FieldError, ...] = ()
    broken: bool = False
    words: frozenset[str] = frozenset()
    why: str = "can't be understood"


def unreadable(path: str, file: File, why: str) -> Contents:
    """What a file says that can't be read: nothing, and that is no statement. Of what is shut that is wrong only if objects stood in it."""
    if file.shut:
        return Contents(_id(file), broken=True, why=why)
    return Contents(_id(file), errors=(FieldError("", "unreadable", why, file=path),), broken=True)


def understand(path: str, file: File, content: bytes) -> tuple[Contents, tuple[Manifest, ...]]:
    """What a file says, and its manifests as they stand."""
    found = parse(content, file=path)
    entries = tuple(_entry(manifest) for manifest in found.manifests)
    broken = bool(found.errors) or not all(_is_sound(entry) for entry in entries)
    words = frozenset(_WORDS.findall(content.decode("utf-8", "replace"))) if broken else frozenset[str]()
    return Contents(_id(file), entries, found.errors, broken, words), found.manifests


def is_same(contents: Contents | None, file: File) -> bool:
    """Whether contents are those of the file as it is now."""
    return contents is not None and contents.id == _id(file)


def places(all_contents: Mapping[str, Contents]) -> dict[Name, list[tuple[str, Entry]]]:
    """Where each object is written: more than one place is one too many."""
    found: dict[Name, list[tuple[str, Entry]]] = {}
    for path, contents in all_contents.items():
        for entry in contents.entries:
            found.setdefault(entry.name, []).append((path, entry))
    return found


def twins(found: Mapping[Name, list[tuple[str, Entry]]]) -> list[FieldError]:
    """An error for each place of an object that is written more than once."""
    errors: list[FieldError] = []
    for name, where in found.items():
        for path, entry in where if len(where) > 1 else ():
            others = " and ".join(f"{other}:{each.place[0]}" for other, each in where if each is not entry)
            message = f"{name.kind} `{name.name}` is also written at {others}: none of them is applied"
            errors.append(FieldError("metadata.name", "twin", message, None, path, *entry.place))
    return errors


def in_order(items: Iterable[Item]) -> list[Item]:
    """What others refer to first, otherwise by file and line."""
    return sorted(items, key=lambda item: (_RANK.get(item.name.kind, len(_RANK)), item.file, item.line))


def against_order(names: Iterable[Name]) -> list[Name]:
    """What refers to others first."""
    return sorted(names, key=lambda name: (-_RANK.get(name.kind, len(_RANK)), name))


def batches(items: Iterable[Item]) -> list[list[Item]]:
    """The items, in requests of a size that is served in a moment."""
    found: list[list[Item]] = []
    size = 0
    for each in items:
        length = len(msgspec.json.encode(each.manifest))
        if not found or size + length > BATCH_BYTES or len(found[-1]) == BATCH_OBJECTS:
            found.append([])
            size = 0
        found[-1].append(each)
        size += length
    return found


def item(manifest: Manifest) -> Item:
    """An object as it is sent."""
    start = manifest.document.start
    return Item(_name(manifest), manifest.value, manifest.file, start.line, start.column, manifest)


def placed(error: FieldError, of: Item) -> FieldError:
    """An error that the control plane told of an object, at its place in the file."""
    if of.written is not None:
        return of.written.place(error)
    return msgspec.structs.replace(error, file=of.file, line=of.line, column=of.column)


def _entry(manifest: Manifest) -> Entry:
    place = manifest.document.locate(("metadata", "name"))
    return Entry(_name(manifest), (place.line, place.column), manifest.check())


def _name(manifest: Manifest) -> Name:
    return Name(manifest.kind, manifest.namespace, manifest.name)


def _is_sound(entry: Entry) -> bool:
    """Whether it can be said which object it is."""
    known = entry.name.kind in KINDS and bool(entry.name.name)
    return known and not any(error.path in _IDENTITY for error in entry.errors)


def _id(file: File) -> str:
    return f"{file.id} {file.flaw}"
