"""Server-sent events from bytes, as they arrive: the data of each event. Knows nothing of what the data means.

Warning: the caller bounds how much it feeds; a line that never ends is kept until then.
"""

import re

_LINE_END = re.compile(rb"\r\n|\r|\n")


class EventDecoder:
    """Feed it chunks cut anywhere, even inside a character or a line ending; it gives the data of the events they complete."""

    def __init__(self) -> None:
        self._tail: list[bytes] = []
        self._data: list[bytes] = []
        self._after_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[bytes]:
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        first, *rest = _LINE_END.split(chunk)
        self._tail.append(first)
        if not rest:
            return []
        lines = [b"".join(self._tail), *rest[:-1]]
        self._tail = [rest[-1]]
        return [data for line in lines if (data := self._line(line)) is not None]

    def _line(self, line: bytes) -> bytes | None:
        if self._at_start:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._at_start = False
        if not line:
            data, self._data = self._data, []
            return b"\n".join(data) if data else None
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
        # Comments (an empty field name) keep the connection alive; event, id and retry say nothing in this protocol.
        return None
