"""NATS keys: Ed25519 pairs that sign. All keys of an installation follow from its operator's, so that there is one secret to keep.

Warning: whoever has the operator's seed is every account of every tenant. It is read by the control plane and by nobody else.
"""

import hashlib
import hmac
import os
from enum import IntEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import nkeys  # pyright: ignore[reportMissingTypeStubs]

from hansa.errors import Misconfigured

SEED_BYTES = 32
_NKEYS: Any = nkeys  # it has no types


class Kind(IntEnum):
    """What a key is of, as its text begins: O, A or U."""

    OPERATOR = nkeys.PREFIX_BYTE_OPERATOR
    ACCOUNT = nkeys.PREFIX_BYTE_ACCOUNT
    USER = nkeys.PREFIX_BYTE_USER


class Key:
    """One pair. `public` names what it is of; `seed` is the secret."""

    def __init__(self, kind: Kind, raw: bytes) -> None:
        self._raw = raw
        self.seed: str = _NKEYS.encode_seed(raw, int(kind)).decode()
        self._pair = _NKEYS.from_seed(self.seed.encode())
        self.public: str = self._pair.public_key.decode()

    def sign(self, data: bytes) -> bytes:
        """The signature, 64 bytes."""
        return self._pair.sign(data)

    def derive(self, kind: Kind, label: str) -> "Key":
        """The one key of that label; nobody without this key's seed can tell."""
        return Key(kind, hmac.digest(self._raw, f"hansa {kind.name.lower()} {label}".encode(), hashlib.sha256))


class Operator:
    """The operator of an installation and the keys that follow from it."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.system = key.derive(Kind.ACCOUNT, "system")
        self.platform = key.derive(Kind.ACCOUNT, "platform")
        self.platform_user = key.derive(Kind.USER, "platform")

    def account(self, tenant_id: UUID) -> Key:
        """The key of a tenant's account."""
        return self.key.derive(Kind.ACCOUNT, f"tenant {tenant_id}")


def new_key(kind: Kind) -> Key:
    """A key that follows from nothing."""
    return Key(kind, os.urandom(SEED_BYTES))


def parse_seed(text: str, kind: Kind) -> Key:
    """A key by its seed. Raises `ValueError`, which tells nothing of the text."""
    try:
        prefix, raw = _NKEYS.decode_seed(text.strip().encode())
    # The library lets through whatever base64 and slicing raise on nonsense.
    except Exception:
        raise ValueError("not the seed of a NATS key") from None
    if prefix != kind or len(raw) != SEED_BYTES or _NKEYS.encode_seed(bytes(raw), prefix).decode() != text.strip():
        raise ValueError(f"not the seed of a NATS {kind.name.lower()}")
    return Key(kind, bytes(raw))


def read_operator(path: str) -> Operator:
    """The operator whose seed is in a file. Raises `Misconfigured`, never with the seed."""
    hint = "`hansa up` and `hansa nats keys` write such a file."
    try:
        return Operator(parse_seed(Path(path).read_text(), Kind.OPERATOR))
    except OSError as error:
        raise Misconfigured(f"HANSA_NATS_OPERATOR_FILE {path} can't be read: {error.strerror}", hint=hint) from error
    except ValueError as error:
        raise Misconfigured(f"HANSA_NATS_OPERATOR_FILE {path}: {error}", hint=hint) from None
