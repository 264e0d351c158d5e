"""An exported tenant: a tar file whose members come in this order.

    tenant.json            format, name, when it was exported, the Tenant's own manifest
    keys.json              what is known of its API keys, never their secrets
    objects.json           the manifests of all else
    sessions/<id>.jsonl    each session as `hansa sessions export` writes it
    end.json               how many members came before, and the SHA-256 over theirs: without it the file was cut off; in its place stands
                           error.json where an export could not go on

Warning: the digests show damage. Whoever changes a member can make them anew: there is no key in them. Pure.
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
        return info.tobuf(tarfile.PAX_FORMAT)


def padding(size: int) -> bytes:
    """What follows a member of so many bytes."""
    return bytes(-size % BLOCK)


def broken(error: Mapping[str, str]) -> bytes:
    """What stands where an export could not go on: no file with it is whole."""
    return Writer(0.0).member(ERROR, msgspec.json.encode(error)) + bytes(2 * BLOCK)


def members(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """All members of a file that is a whole bundle, in their order, read one by one. Raises `Invalid` where it is not. Nothing is
    written anywhere, whatever the names say."""
    digest, count, end = hashlib.sha256(), 0, None
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for info in archive:
                content = archive.extractfile(info) if info.isreg() else None
                if content is None or end is not None:
                    raise _wrong(f"{info.name[:80]!r} is no member of an export of a tenant")
                body = content.read()
                if info.name == ERROR:
                    raise _wrong(f"it broke off: {body[:500].decode(errors='replace')}")
                if info.name == END:
                    end = msgspec.json.decode(body, type=End)
                    continue
                digest.update(hashlib.sha256(body).digest())
                count += 1
                yield info.name, body
    except (tarfile.TarError, msgspec.MsgspecError, EOFError) as error:
        raise _wrong(f"it can't be read: {error}") from error
    if end is None or (end.members, end.sha256) != (count, digest.hexdigest()):
        raise _wrong("members are missing or were changed")


def head_of(first: tuple[str, bytes] | None) -> Head:
    """What the first member says. Raises `Invalid`."""
    if first is None or first[0] != TENANT:
        raise _wrong("it does not begin with tenant.json")
    try:
        head = msgspec.json.decode(first[1], type=Head)
    except msgspec.MsgspecError as error:
        raise _wrong(f"tenant.json can't be read: {error}") from error
    if head.format != FORMAT:
        raise _wrong(f"it is of format {head.format}, and this version reads {FORMAT}")
    return head


def _wrong(what: str) -> Invalid:
    return Invalid(f"this is no whole export of a tenant: {what}", errors=(FieldError("body", "archive", what),))
