"""Manifests read from files: what they say, and the file, line and column of everything they say.

Each flaw is a `FieldError` with its place, and costs one document, or the rest of its file when the syntax is broken; all others
are still usable. Must not know HTTP, the database or the terminal, nor which fields an object has.
"""

import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import yaml

from hansa.apply.document import Document, Flaw, Place, documents
from hansa.apply.model import ORDER
from hansa.errors import FieldError
from hansa_crds.problem import Keys, shown
from hansa_crds.validation import check

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
MAX_BYTES = 4 * 1024 * 1024
STDIN = Path("-")

_STEP = re.compile(r'\[("(?:[^"\\]|\\.)*")\]|\[([0-9]{1,9})\]|([^.\[\]]+)')


class Manifest(msgspec.Struct, frozen=True):
    """One object as it was written: `value` is plain JSON data, `document` knows where each part of it stands in `file`."""

    file: str
    document: Document

    @property
    def value(self) -> dict[str, Any]:
        """The object."""
        return self.document.value

    @property
    def kind(self) -> str:
        """Its kind, or an empty text when it has none."""
        return _text(self.value, "kind")

    @property
    def name(self) -> str:
        """Its name, or an empty text when it has none."""
        return _text(self.value, "metadata", "name")

    @property
    def namespace(self) -> str:
        """Its namespace, or an empty text when it has none."""
        return _text(self.value, "metadata", "namespace")

    def place(self, error: FieldError) -> FieldError:
        """The same error with its file, line and column: of the key when the key is wrong, else of the value."""
        place = self.document.locate(keys_of(error.path), name=error.code in {"unknown_field", "duplicate"})
        return msgspec.structs.replace(error, file=self.file, line=place.line, column=place.column)

    def check(self) -> tuple[FieldError, ...]:
        """What is wrong with it by the rules of its kind, as far as that can be said without a server."""
        _, problems = check(self.value)
        return tuple(self.place(FieldError(each.path, each.code, each.message, each.suggestion or None)) for each in problems)


class Collection(msgspec.Struct, frozen=True):
    """What a set of files holds: usable manifests in the order in which to apply them, and what was wrong with the others."""

    manifests: tuple[Manifest, ...]
    errors: tuple[FieldError, ...]


def keys_of(path: str) -> Keys:
    """The way that a path such as `spec.tools[0]` or `metadata.labels["example.org/team"]` writes out."""
    keys: list[str | int] = []
    for quoted, index, plain in _STEP.findall(path):
        if quoted:
            keys.append(_unquoted(quoted))
        else:
            keys.append(int(index) if index else plain)
    return tuple(keys)


def read(paths: Iterable[Path], *, recursive: bool = False) -> Collection:
    """Read files and folders (sorted; sub-folders when `recursive`); `-` is stdin; a path given twice is read once."""
    manifests: list[Manifest] = []
    errors: list[FieldError] = []
    for path in _files(paths, errors, recursive=recursive):
        try:
            content = _content(path)
        except OSError as error:
            errors.append(FieldError("", "unreadable", f"can't be read: {error.strerror or error}", file=str(path)))
            continue
        found = parse(content, file=str(path))
        manifests.extend(found.manifests)
        errors.extend(found.errors)
    unique = _without_twins(manifests, errors)
    return Collection(in_order(unique), tuple(errors))


def parse(content: bytes, *, file: str) -> Collection:
    """The manifests in `content`, in the order in which they stand. Twins are not looked for. Raises nothing."""
    errors: list[FieldError] = []
    manifests: list[Manifest] = []

    def reject(flaw: Flaw) -> None:
        errors.append(FieldError(flaw.path, flaw.code, flaw.message, None, file, flaw.place.line, flaw.place.column))

    try:
        for document in _documents(_decode(content), reject, file=file):
            if isinstance(document.value, dict):
                manifests.append(Manifest(file, document))
            else:
                reject(Flaw(document.start, "type", "a manifest must be a mapping with apiVersion, kind, metadata and spec"))
    except Flaw as flaw:
        # Nobody can say where the next document begins; those before are whole.
        reject(flaw)
    return Collection(tuple(manifests), tuple(errors))


def in_order(manifests: Iterable[Manifest]) -> tuple[Manifest, ...]:
    """Sorted by kind as in `ORDER`, otherwise as they came; unknown kinds come last."""
    rank = {kind: index for index, kind in enumerate(ORDER)}
    return tuple(sorted(manifests, key=lambda manifest: rank.get(manifest.kind, len(rank))))


def _documents(text: str, reject: Any, *, file: str) -> Iterator[Document]:
    is_json = file.endswith(".json")
    # Tabs indent JSON legally and can't stand inside its strings, so a blank says the same and keeps the columns.
    source = text.replace("\t", " ") if is_json else text
    # libyaml refuses JSON's surrogate pairs (\ud83d\ude00); the slower parser in Python takes them.
    loader_type: Any = yaml.SafeLoader if is_json or not yaml.__with_libyaml__ else yaml.CSafeLoader
    try:
        loader = loader_type(source)
    except yaml.reader.ReaderError as error:
        raise Flaw(_place_of(source, error.position), "character", f"character {_shown(error)} is not allowed") from None
    try:
        yield from documents(loader, reject)
    except yaml.MarkedYAMLError as error:
        raise _syntax_flaw(error, source) from None
    except yaml.reader.ReaderError as error:
        raise Flaw(_place_of(source, error.position), "character", f"character {_shown(error)} is not allowed") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise Flaw(Place(1, 1), "syntax", f"not valid YAML: {error}") from None
    finally:
        loader.dispose()


def _syntax_flaw(error: yaml.MarkedYAMLError, source: str) -> Flaw:
    mark = error.problem_mark or error.context_mark
    place = Place(mark.line + 1, mark.column + 1) if mark is not None else Place(1, 1)
    lines = source.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    if "\t" in line[: place.column]:
        return Flaw(Place(place.line, line.index("\t") + 1), "tab", "a tab can't indent or separate YAML: use blanks")
    said = ", ".join(part for part in (error.context, error.problem) if part)
    return Flaw(place, "syntax", f"not valid YAML: {said}; what follows in this file is not read")


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _place_of(content[: error.start].decode("utf-8-sig", "replace"), None)
        message = f"not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start} ({error.reason})"
        raise Flaw(place, "encoding", message) from None


def _place_of(text: str, position: int | None) -> Place:
    before = text if position is None else text[:position]
    start = before.rfind("\n") + 1
    return Place(before.count("\n") + 1, len(before) - start + 1)


def _shown(error: Any) -> str:
    character = error.character
    return f"U+{character if isinstance(character, int) else ord(character):04X}"


def _content(path: Path) -> bytes:
    if path != STDIN:
        # A device may never end: /dev/zero is no manifest.
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise OSError(0, "is not a file")
    with open(0 if path == STDIN else path, "rb", closefd=path != STDIN) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(0, f"larger than {MAX_BYTES} bytes")
    return content


def _files(paths: Iterable[Path], errors: list[FieldError], *, recursive: bool) -> list[Path]:
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = path.rglob("*") if recursive else path.glob("*")
            found = sorted(each for each in inside if each.suffix in SUFFIXES and not each.is_dir())
            if not found:
                errors.append(FieldError("", "empty", "no *.yaml, *.yml or *.json file in this folder", file=str(path)))
            for each in found:
                if each.exists() and not each.is_file():
                    # Nobody named it, and to open a pipe waits for someone who writes into it.
                    errors.append(FieldError("", "unreadable", "is a pipe or a device, not a file", file=str(each)))
                else:
                    files[each] = None
        elif path == STDIN or path.exists():
            files[path] = None
        else:
            errors.append(FieldError("", "missing", "no such file or folder", file=str(path)))
    return list(files)


def _without_twins(manifests: Iterable[Manifest], errors: list[FieldError]) -> list[Manifest]:
    """Leave out all objects that are written more than once: nobody can say which was meant."""
    groups: dict[tuple[str, str, str], list[Manifest]] = {}
    for index, manifest in enumerate(manifests):
        identity = (manifest.kind, manifest.namespace, manifest.name) if manifest.kind and manifest.name else ("", "", str(index))
        groups.setdefault(identity, []).append(manifest)
    unique: list[Manifest] = []
    for group in groups.values():
        if len(group) == 1:
            unique.append(group[0])
            continue
        for manifest in group:
            others = " and ".join(_where(other) for other in group if other is not manifest)
            message = f"{manifest.kind} `{shown(manifest.name)}` is also written at {others}: none of them is applied"
            errors.append(manifest.place(FieldError("metadata.name", "twin", message)))
    return unique


def _where(manifest: Manifest) -> str:
    place = manifest.document.locate(("metadata", "name"))
    return f"{manifest.file}:{place.line}:{place.column}"


def _unquoted(text: str) -> str:
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.DecodeError:
        return text


def _text(value: dict[str, Any], *path: str) -> str:
    found: Any = value
    for key in path:
        # `value` came out of our own parser: its mappings are exactly dicts.
        found = cast(dict[str, Any], found).get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""
