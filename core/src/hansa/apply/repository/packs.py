"""Whether a pack that a server sent may be unpacked: how many objects it has, and how large each and all of them become.

Packs are compressed twice, by zlib and by deltas that copy from other objects: a few kilobytes can stand for terabytes. So a pack
is walked through once in small pieces before anything keeps what it unpacks. Must not know what the objects are.
"""

import zlib
from typing import BinaryIO

from hansa.apply.repository.failures import Reason, RepositoryAway, RepositoryRefused

MAX_PACK_BYTES = 256 * 1024 * 1024
"""Of one answer, as it is sent."""
MAX_OBJECT_BYTES = 32 * 1024 * 1024
"""Of one object, unpacked: eight times the largest file that is read as a manifest."""
MAX_ALL_BYTES = 2 * 1024 * 1024 * 1024
"""Of all objects of one pack, unpacked."""
MAX_OBJECTS = 1_000_000

_OFS_DELTA, _REF_DELTA = 6, 7
_CHUNK = 64 * 1024
_MAX_SHIFT = 57
"""Bits of a size that may come before its last seven."""
_HINT = "Keep manifests in a repository of their own, without large files."


def judge(pack: BinaryIO, *, most: int = MAX_ALL_BYTES) -> int:
    """Walk through a pack from its beginning; how many objects it holds. Raises `RepositoryRefused` when it is too large,
    `RepositoryAway` when it is broken."""
    reader = _Reader(pack)
    head = reader.exactly(12)
    if head[:4] != b"PACK" or int.from_bytes(head[4:8], "big") not in (2, 3):
        raise RepositoryAway(Reason.DAMAGED, "what the server sent is no pack of Git")
    count, total = int.from_bytes(head[8:], "big"), 0
    if count > MAX_OBJECTS:
        raise RepositoryRefused(Reason.TOO_LARGE, f"the server sends {count} objects; the most is {MAX_OBJECTS}", hint=_HINT)
    for _ in range(count):
        total += _object(reader)
        if total > most:
            raise RepositoryRefused(Reason.TOO_LARGE, f"what the server sends becomes more than {most} bytes", hint=_HINT)
    return count


def _object(reader: "_Reader") -> int:
    """The size of the next object, unpacked."""
    byte = reader.byte()
    kind, size, shift = byte >> 4 & 7, byte & 15, 4
    while byte & 0x80:
        if shift > _MAX_SHIFT:  # else each further byte costs more than the one before
            raise RepositoryAway(Reason.DAMAGED, "what the server sent holds a size that does not end")
        byte = reader.byte()
        size |= (byte & 0x7F) << shift
        shift += 7
    if kind == _OFS_DELTA:
        while reader.byte() & 0x80:
            pass
    elif kind == _REF_DELTA:
        reader.exactly(20)
    start = reader.inflate(size)
    if kind not in (_OFS_DELTA, _REF_DELTA):
        return size
    _, rest = _varint(start)
    becomes, _ = _varint(rest)
    return size + _bounded(becomes)


def _varint(data: bytes) -> tuple[int, bytes]:
    """A size at the beginning of a delta, and what follows it."""
    size = 0
    for index, byte in enumerate(data[:10]):
        size |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return size, data[index + 1 :]
    raise RepositoryAway(Reason.DAMAGED, "what the server sent holds a delta without sizes")


def _bounded(size: int) -> int:
    if size > MAX_OBJECT_BYTES:
        detail = f"the server sends an object of {size} bytes; the most is {MAX_OBJECT_BYTES}"
        raise RepositoryRefused(Reason.TOO_LARGE, detail, hint=_HINT)
    return size


class _Reader:
    """Reads a file in pieces, gives bytes back that a decompressor did not want."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = b""
        self._at = 0

    def byte(self) -> int:
        if self._at >= len(self._left):
            self._fill()
        self._at += 1
        return self._left[self._at - 1]

    def exactly(self, count: int) -> bytes:
        return bytes(self.byte() for _ in range(count))

    def inflate(self, size: int) -> bytes:
        """Unpack one object, keep its first bytes and check that it is as long as it said."""
        _bounded(size)
        inflater, length, start = zlib.decompressobj(), 0, b""
        data = self._left[self._at :]
        while not inflater.eof:
            if not data:
                self._fill()
                data = self._left
            try:
                piece = inflater.decompress(data, _CHUNK)
            except zlib.error as error:
                raise RepositoryAway(Reason.DAMAGED, f"what the server sent can't be unpacked: {error}") from error
            length += len(piece)
            if length > size:
                raise RepositoryAway(Reason.DAMAGED, "what the server sent holds an object that is larger than it says")
            if len(start) < 20:
                start += piece[:20]
            data = inflater.unconsumed_tail
        if length != size:
            raise RepositoryAway(Reason.DAMAGED, "what the server sent holds an object that is smaller than it says")
        self._left, self._at = inflater.unused_data, 0
        return start[:20]

    def _fill(self) -> None:
        self._left, self._at = self._file.read(_CHUNK), 0
        if not self._left:
            raise RepositoryAway(Reason.DAMAGED, "what the server sent ends too early")
