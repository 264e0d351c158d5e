"""Server-sent events: the data of each message, as soon as its blank line has arrived.

Knows nothing of what the data means. What stands behind the last blank line is dropped: it was cut off.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Iterator

_BOM = b"\xef\xbb\xbf"


async def messages(parts: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Data of the events of type `message`; events without data and all other types are passed over."""
    lines, event = _Lines(), _Event()
    async for part in parts:
        for line in lines.feed(part):
            data = event.take(line)
            if data:
                yield data


class _Event:
    """The event that is arriving."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._type = b""

    def take(self, line: bytes) -> bytes:
        """The data of the event that this line ends, if it ends one and it is a message."""
        if not line:
            data = b"\n".join(self._data) if self._type in (b"", b"message") else b""
            self._data, self._type = [], b""
            return data
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._type = value
        return b""


class _Lines:
    """Divides bytes at LF, CR LF or CR, wherever the parts are cut."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._searched = 0
        self._after_cr = False
        self._begun = False

    def feed(self, part: bytes) -> Iterator[bytes]:
        if self._after_cr and part:
            part = part.removeprefix(b"\n")
            self._after_cr = False
        self._rest += part
        while True:
            end = _first_end(self._rest, self._searched)
            if end < 0:
                self._searched = len(self._rest)
                return
            line = bytes(self._rest[:end])
            following = end + 1
            if self._rest[end] == 0x0D:
                self._after_cr = following == len(self._rest)
                following += self._rest.startswith(b"\n", following)
            del self._rest[:following]
            self._searched = 0
            yield line if self._begun else line.removeprefix(_BOM)
            self._begun = True


def _first_end(text: bytearray, start: int) -> int:
    ends = [end for end in (text.find(b"\n", start), text.find(b"\r", start)) if end >= 0]
    return min(ends, default=-1)
