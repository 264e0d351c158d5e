"""What is known of a tenant's data keys and secrets. Nothing here is shown: no text is made of these."""

import re

import msgspec

from hansa.secrets.keyring import StoredKey

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
"""No part begins with a dot, so none is `..`; none is empty."""
LARGEST = 65_536
"""Bytes of a value."""
SHORTEST = 8
"""Characters of a value: a shorter one could be guessed, and could not be kept out of texts."""
MOST_NAMES = 1000
KEPT_VERSIONS = 10


class DataKey(msgspec.Struct, frozen=True):
    """A data key of a tenant, wrapped; `generation` counts from 1, the newest encrypts."""

    generation: int
    kek: str
    key_id: str
    wrapped: bytes

    @property
    def stored(self) -> StoredKey:
        """As the keyring knows it."""
        return StoredKey(self.kek, self.key_id, self.wrapped)


class Kept(msgspec.Struct, frozen=True):
    """The version of a secret that counts. Either sealed, or a reference; `tenant` is the tenant's name; `hosts`: the only ones
    that it is sent to."""

    tenant: str
    version: int
    generation: int | None
    sealed: bytes | None
    source: str | None
    path: str | None
    kek: str | None
    key_id: str | None
    wrapped: bytes | None
    hosts: tuple[str, ...] | None

    @property
    def key(self) -> StoredKey | None:
        """The data key that sealed it."""
        if self.kek is None or self.key_id is None or self.wrapped is None:
            return None
        return StoredKey(self.kek, self.key_id, self.wrapped)


class Sealed(msgspec.Struct, frozen=True):
    """One version of one secret, sealed."""

    name: str
    version: int
    generation: int
    sealed: bytes


class Progress(msgspec.Struct, frozen=True):
    """How far the change of a tenant's data key has come: `left` of `total` versions are still sealed by an older one.

    `damaged`: those of `left` that can't be opened, as `name vN`; they keep the older key alive until they are deleted or set again.
    """

    generation: int
    total: int
    left: int
    damaged: tuple[str, ...] = ()
    finished: bool = False


class FailedKey(msgspec.Struct, frozen=True):
    """A data key that could not be brought under the current key."""

    tenant: str
    generation: int
    reason: str


class Wrapping(msgspec.Struct, frozen=True):
    """How far all data keys have come under the current key-encryption key: `left` of `total` are wrapped by another."""

    kek: str
    key_id: str
    total: int
    left: int
    failed: tuple[FailedKey, ...] = ()
    finished: bool = False
