"""An exported tenant: a tar file whose members come in this order.

    tenant.json            format, name, when it was exported, the Tenant's own manifest
    keys.json              what is known of its API keys, never their secrets
    objects.json           the manifests of all else
    sessions/<id>.jsonl    each session as `hansa sessions export` writes it
    end.json               how many members came before, and the SHA-256 over theirs: without it the file was cut off; in its place stands
                           error.json where an export could not go on

A session is read piece by piece, all else is read whole and has a bound. Warning: the digests show damage. Whoever changes a member can
make them anew: there is no key in them. Pure.
"""

import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

import msgspec

from hansa.errors import FieldError, Invalid

FORMAT = 1
TENANT, KEYS, OBJECTS, END = "tenant.json", "keys.json", "objects.json", "end.json"
ERROR = "error.json"
BLOCK = 512
SESSIONS = "sessions/"
PIECE = 1024 * 1024
WHOLE_BYTES = 128 * 1024 * 1024
"""Largest member that is read whole, in bytes: objects, or keys, of tens of thousands."""


class Head(msgspec.Struct, frozen=True):
    """What a bundle begins with. `manifest`: the Tenant's; None: nobody had applied one."""

    format: int
    name: str
    exported_at: str
    manifest: dict[str, Any] | None


class End(msgspec.Struct, frozen=True):
    """What it ends with."""

    members: int
    sha256: str


class Writer:
    """Makes members, one after the other."""

    def __init__(self, made: float) -> None:
        """`made`: the time that the members bear, in seconds since 1970."""
        self._made = made
        self._members = 0
        self._digest = hashlib.sha256()

    def member(self, name: str, body: bytes) -> bytes:
        """One member."""
        return self.begin(name, len(body), hashlib.sha256(body).digest()) + body + padding(len(body))

    def begin(self, name: str, size: int, digest: bytes) -> bytes:
        """What a member of so many bytes with this SHA-256 begins with; they follow, and then its `padding`."""
        self._members += 1
        self._digest.update(digest)
        return self._head(name, size)

    def end(self) -> bytes:
        """The last member, and the end of the file."""
        end = msgspec.json.encode(End(self._members, self._digest.hexdigest()))
        return self._head(END, len(end)) + end + padding(len(end)) + bytes(2 * BLOCK)

    def _head(self, name: str, size: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = size, int(self._made), 0o600
        return info.tobuf(tarfile.GNU_FORMAT)  # one header, also where more than 8 GiB follow


def padding(size: int) -> bytes:
    """What follows a member of so many bytes."""
    return bytes(-size % BLOCK)


def broken(error: Mapping[str, str]) -> bytes:
    """What stands where an export could not go on: no file with it is whole."""
    return Writer(0.0).member(ERROR, msgspec.json.encode(error)) + bytes(2 * BLOCK)


class Member:
    """A member while its turn is: read by `pieces` or `whole`, once."""

    def __init__(self, name: str, size: int, file: IO[bytes]) -> None:
        self.name = name
        self.size = size
        self._file = file
        self._left = size
        self._digest = hashlib.sha256()

    def pieces(self) -> Iterator[bytes]:
        """What it holds, as far as it was not read. Raises `Invalid` where the file ends before it."""
        while self._left:
            piece = self._file.read(min(PIECE, self._left))
            if not piece:
                raise _wrong(f"it ends within {self.name!r}")
            self._left -= len(piece)
            self._digest.update(piece)
            yield piece

    def whole(self, most: int = WHOLE_BYTES) -> bytes:
        """All of it. Raises `Invalid` for one that is larger than `most` bytes."""
        if self.size > most:
            raise _wrong(f"{self.name!r} has {self.size} bytes, and of such a member no more than {most} are read")
        return b"".join(self.pieces())

    def ended(self) -> bytes:
        """The SHA-256 of it, with what nobody has read."""
        for _ in self.pieces():
            pass
        self._file.read(len(padding(self.size)))
        return self._digest.digest()


def members(file: IO[bytes]) -> Iterator[Member]:
    """All members of a file that is a whole bundle, in their order, each to be read before the next one is asked for. Raises `Invalid`
    where it is not. Nothing is written anywhere, whatever the names say."""
    digest, count, end = hashlib.sha256(), 0, None
    try:
        while any(block := file.read(BLOCK)):
            # Not `tarfile.open`: it keeps every header, and takes what lengthens a name or a size whole into memory.
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            if not info.isreg() or info.size < 0 or end is not None:
                raise _wrong(f"{info.name[:80]!r} is no member of an export of a tenant")
            member = Member(info.name, info.size, file)
            if info.name == ERROR:
                raise _wrong(f"it broke off: {next(member.pieces(), b'')[:500].decode(errors='replace')}")
            if info.name == END:
                end = msgspec.json.decode(member.whole(BLOCK), type=End)
                member.ended()
                continue
            yield member
            digest.update(member.ended())
            count += 1
    except (tarfile.TarError, msgspec.MsgspecError) as error:
        raise _wrong(f"it can't be read: {error}") from error
    if end is None or (end.members, end.sha256) != (count, digest.hexdigest()):
        raise _wrong("members are missing or were changed")


def head_of(first: Member | None) -> Head:
    """What the first member says, before another one is asked for. Raises `Invalid`."""
    if first is None or first.name != TENANT:
        raise _wrong("it does not begin with tenant.json")
    try:
        head = msgspec.json.decode(first.whole(), type=Head)
    except msgspec.MsgspecError as error:
        raise _wrong(f"tenant.json can't be read: {error}") from error
    if head.format != FORMAT:
        raise _wrong(f"it is of format {head.format}, and this version reads {FORMAT}")
    return head


def _wrong(what: str) -> Invalid:
    return Invalid(f"this is no whole export of a tenant: {what}", errors=(FieldError("body", "archive", what),))
