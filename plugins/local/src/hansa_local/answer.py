"""Reads an answer while it is written: streams what is meant for people, and tells calls of tools from it.

Knows the two forms that `constraint` asks for. Whatever is streamed, joined, is the text of the response.
"""

import re
from typing import Any, Protocol

import msgspec

from hansa_sdk import TextSink, ToolCall

_ANSWER = '{"answer":'
_WHOLE_CHARACTERS = re.compile(
    r"""(?: [^"\\] | \\["\\/bfnrt] | \\u(?!d[89a-f])[0-9a-f]{4} | \\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2} )*""",
    re.IGNORECASE | re.VERBOSE,
)
"""The inside of a JSON string, up to an escape that is not over yet."""
_NAME = re.compile(r'\{"tool":("(?:[^"\\]|\\.)*")')


class Reader(Protocol):
    """Takes what the model writes, piece by piece."""

    def read(self, piece: str) -> None: ...

    def finish(self, *, whole: bool) -> tuple[str, ToolCall | None]:
        """The text, and the call in its place; not `whole` when the tokens ran out first."""
        ...


class Plain:
    """Text, or a JSON document: between `prefix` and `suffix`, as it is."""

    def __init__(self, on_text: TextSink, *, prefix: str = "", suffix: str = "") -> None:
        self._on_text = on_text
        self._due = prefix
        self._suffix = suffix
        self._written: list[str] = []

    def read(self, piece: str) -> None:
        if piece:
            self._write(self._due + piece)
            self._due = ""

    def finish(self, *, whole: bool) -> tuple[str, ToolCall | None]:
        if whole:
            self._write(self._due + self._suffix)
        return "".join(self._written), None

    def _write(self, text: str) -> None:
        if text:
            self._written.append(text)
            self._on_text(text)


class ToolOrAnswer:
    """`{"tool":...}`, which is not streamed, or `{"answer":...}`, whose value is: as a string's text, or as JSON."""

    def __init__(self, on_text: TextSink, *, call_id: str, as_json: bool) -> None:
        self._out = Plain(on_text)
        self._call_id = call_id
        self._as_json = as_json
        self._raw = ""
        self._read = len(_ANSWER) if as_json else len(_ANSWER) + 1

    def read(self, piece: str) -> None:
        self._raw += piece
        if not self._raw.startswith(_ANSWER):
            return
        if self._as_json:
            # Back by one: the last brace is not the value's.
            end = max(self._read, len(self._raw) - 1)
            self._out.read(self._raw[self._read : end])
        else:
            found = _WHOLE_CHARACTERS.match(self._raw, self._read)
            end = found.end() if found else self._read
            self._out.read(msgspec.json.decode(f'"{self._raw[self._read : end]}"', type=str))
        self._read = max(self._read, end)

    def finish(self, *, whole: bool) -> tuple[str, ToolCall | None]:
        if self._raw.startswith(_ANSWER):
            if self._as_json and not whole:
                self._out.read(self._raw[self._read :])
            return self._out.finish(whole=True)
        named = _NAME.match(self._raw)
        name = msgspec.json.decode(named[1], type=str) if named else ""
        if whole:
            arguments = _arguments(self._raw)
            if arguments is not None:
                return "", ToolCall(self._call_id, name, arguments)
        if name:
            return "", ToolCall(self._call_id, name, malformed=self._raw)
        # Not one of the two forms: the tokens ran out before it could be told, or the grammar did not hold.
        self._out.read(self._raw if whole else "")
        return self._out.finish(whole=True)


def _arguments(text: str) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text, type=_Call).arguments
    except msgspec.DecodeError:
        return None


class _Call(msgspec.Struct, frozen=True):
    tool: str
    arguments: dict[str, Any]
