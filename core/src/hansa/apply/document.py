"""One YAML document as plain JSON data, with the place of every value in its file.

Built from parser events, without recursion and with bounds on depth and on what aliases expand to, so that no file can
exhaust memory or the stack. Scalars follow the core schema of YAML 1.2: `no`, `on` and `2026-01-01` are text. Must not know
what manifests mean, nor where files come from.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import yaml

from hansa_crds.problem import Keys, path_of, shown

MAX_DEPTH = 64
MAX_NODES = 100_000
"""Values in one document, counted after aliases are expanded."""

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_JSON = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INT_LIMIT = 2**63
_HOPELESS = frozenset({"depth", "size"})
_TAG = "tag:yaml.org,2002:"


class Place(msgspec.Struct, frozen=True):
    """A place in a file; line and column count characters from 1."""

    line: int
    column: int


class Flaw(Exception):
    """What makes a document unusable, and where: `place` is in the file that is being read."""

    def __init__(self, place: Place, code: str, message: str, *, keys: Keys = ()) -> None:
        super().__init__(message)
        self.place = place
        self.code = code
        self.message = message
        self.path = path_of(keys)


class Document(msgspec.Struct, frozen=True):
    """One document. `values` and `names` map the way to a value to where the value stands, and where the key before it."""

    value: Any
    start: Place
    values: dict[Keys, Place]
    names: dict[Keys, Place]

    def locate(self, keys: Keys, *, name: bool = False) -> Place:
        """Where the value at `keys` stands, or the key before it if `name`; for what does not exist, the nearest key around it."""
        exact = self.names if name else self.values
        if keys in exact:
            return exact[keys]
        for length in range(len(keys), 0, -1):
            around = keys[:length]
            if around in self.names:
                return self.names[around]
            if around in self.values:
                return self.values[around]
        return self.start


class _Node(msgspec.Struct):
    """A value that is being built; `key` is the mapping key that waits for its value, `count` its size with aliases expanded."""

    value: Any
    keys: Keys
    place: Place
    anchor: str | None
    count: int = 1
    key: str | None = None

    @property
    def is_list(self) -> bool:
        """Whether it takes items; else it takes keys and values, or nothing."""
        return isinstance(self.value, list)

    @property
    def wants_key(self) -> bool:
        """Whether what comes next is a key."""
        return isinstance(self.value, dict) and self.key is None


def is_text(plain: str) -> bool:
    """Whether a word that stands without quotes is read as text, and not as a number, a truth or nothing."""
    number = _INT.fullmatch(plain) or _FLOAT.fullmatch(plain) or _NOT_JSON.fullmatch(plain)
    return not number and plain not in _NULL | _TRUE | _FALSE


def documents(loader: Any, reject: Any) -> Iterator[Document]:
    """Yield the documents of a parser (`check_event`, `get_event`); `reject(flaw)` is told of each that can't be used.

    A flaw inside a document costs that document alone. A syntax error (`yaml.YAMLError`) is raised and ends the file, and so is
    a flaw of size or depth: the parser's work grows with the square of the depth, so nothing more is asked of it.
    """
    while loader.check_event():
        event = loader.get_event()
        if not isinstance(event, yaml.DocumentStartEvent):
            continue
        builder = _Builder()
        flaw: Flaw | None = None
        while not isinstance(event := loader.get_event(), yaml.DocumentEndEvent):
            if flaw is None:
                try:
                    builder.take(event)
                except Flaw as found:
                    if found.code in _HOPELESS:
                        raise
                    flaw = found
        if flaw is not None:
            reject(flaw)
        elif builder.root is not None and builder.root.value is not None:
            yield Document(builder.root.value, builder.root.place, builder.values, builder.names)


class _Builder:
    """Builds one document from its events."""

    def __init__(self) -> None:
        self.root: _Node | None = None
        self.values: dict[Keys, Place] = {}
        self.names: dict[Keys, Place] = {}
        self._stack: list[_Node] = []
        self._anchors: dict[str, _Node] = {}

    def take(self, event: Any) -> None:
        """Take the next event of the document. Raises `Flaw`."""
        place = _place(event)
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event, place)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._open(event, place)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event, place)
        else:
            self._close()

    def _scalar(self, event: Any, place: Place) -> None:
        parent = self._stack[-1] if self._stack else None
        if parent is not None and parent.wants_key:
            self._key(parent, event, place)
            return
        keys = self._keys()
        self._add(_Node(_decode(event, place, keys), keys, place, event.anchor))

    def _key(self, parent: _Node, event: Any, place: Place) -> None:
        key = _decode(event, place, parent.keys)
        if not isinstance(key, str):
            raise Flaw(place, "type", f"a key must be text, got {shown(event.value)}: write it in quotes", keys=parent.keys)
        keys = (*parent.keys, key)
        if event.value == "<<" and event.implicit[0]:
            raise Flaw(place, "merge", "merge keys (`<<`) are not supported: write the fields out", keys=keys)
        if key in parent.value:
            first = self.names[keys]
            raise Flaw(place, "duplicate", f"duplicate key, first written at {first.line}:{first.column}", keys=keys)
        self.names[keys] = place
        if event.anchor is not None:
            self._anchors[event.anchor] = _Node(key, keys, place, None)
        parent.key = key

    def _open(self, event: Any, place: Place) -> None:
        self._refuse_as_key(place)
        wanted = "map" if isinstance(event, yaml.MappingStartEvent) else "seq"
        keys = self._keys()
        if event.tag not in (None, "!", _TAG + wanted):
            raise Flaw(place, "tag", f"tag {shown(event.tag)} is not supported", keys=keys)
        if len(self._stack) >= MAX_DEPTH:
            raise Flaw(place, "depth", f"nested deeper than {MAX_DEPTH} levels", keys=keys)
        self._stack.append(_Node({} if wanted == "map" else [], keys, place, event.anchor))

    def _close(self) -> None:
        if self._stack:
            self._add(self._stack.pop())

    def _alias(self, event: Any, place: Place) -> None:
        self._refuse_as_key(place)
        keys = self._keys()
        target = self._anchors.get(event.anchor)
        if target is None:
            raise Flaw(place, "alias", f"alias `*{shown(event.anchor)}` has no finished anchor before it", keys=keys)
        self._add(_Node(target.value, keys, place, None, target.count))

    def _refuse_as_key(self, place: Place) -> None:
        if self._stack and self._stack[-1].wants_key:
            raise Flaw(place, "type", "a key must be plain text", keys=self._stack[-1].keys)

    def _keys(self) -> Keys:
        """The way to the value that comes next."""
        if not self._stack:
            return ()
        parent = self._stack[-1]
        return (*parent.keys, len(parent.value) if parent.is_list else str(parent.key))

    def _add(self, node: _Node) -> None:
        self.values[node.keys] = node.place
        if node.anchor is not None:
            self._anchors[node.anchor] = node
        if not self._stack:
            self.root = node
            return
        parent = self._stack[-1]
        parent.count += node.count
        if parent.count > MAX_NODES:
            raise Flaw(node.place, "size", f"more than {MAX_NODES} values after aliases are expanded", keys=node.keys)
        if parent.is_list:
            parent.value.append(node.value)
        else:
            parent.value[parent.key] = node.value
            parent.key = None


def _place(event: Any) -> Place:
    mark = event.start_mark
    return Place(mark.line + 1, mark.column + 1)


def _decode(event: Any, place: Place, keys: Keys) -> Any:
    text: str = event.value
    tag: str | None = event.tag
    if tag in ("!", _TAG + "str") or (tag is None and not event.implicit[0]):
        return _text(text, place, keys)
    if tag is not None and tag not in (_TAG + "null", _TAG + "bool", _TAG + "int", _TAG + "float"):
        raise Flaw(place, "tag", f"tag {shown(tag)} is not supported", keys=keys)
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if _INT.fullmatch(text):
        return _integer(text, place, keys)
    if _FLOAT.fullmatch(text) or _NOT_JSON.fullmatch(text):
        return _number(text, place, keys)
    if tag is not None:
        raise Flaw(place, "type", f"{shown(text)} is not of the type that its tag {shown(tag)} names", keys=keys)
    return _text(text, place, keys)


def _integer(text: str, place: Place, keys: Keys) -> int:
    limit = 40
    number = int(text, 0) if text[:2] in ("0o", "0x") and len(text) < limit else None
    if number is None and len(text) < limit:
        number = int(text)
    if number is None or not -_INT_LIMIT <= number < _INT_LIMIT:
        raise Flaw(place, "range", f"{shown(text)} is beyond 64 bits: write it in quotes if it is text", keys=keys)
    return number


def _number(text: str, place: Place, keys: Keys) -> float:
    number = math.inf if _NOT_JSON.fullmatch(text) else float(text)
    if math.isinf(number):
        raise Flaw(place, "range", f"{shown(text)} is not a number that JSON can hold", keys=keys)
    return number


def _text(text: str, place: Place, keys: Keys) -> str:
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise Flaw(place, "unicode", "holds half of a surrogate pair, which is no character", keys=keys) from None
