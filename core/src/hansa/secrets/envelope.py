"""The inner envelope of secrets: AES-256-GCM with a data key of the tenant, bound to tenant, name and version.

Layout of what is sealed: 12 bytes nonce, ciphertext, 16 bytes tag. Must not know where keys come from nor where values lie.
Warning: a nonce is drawn at random for each value, good for 2^32 values of one key; a key is rotated long before.
"""

from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hansa import ids
from hansa.errors import Damaged

KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16


def new_data_key() -> bytes:
    """A fresh key of 256 bits."""
    return ids.new_key(KEY_BYTES)


def binding(tenant_id: UUID, name: str, version: int) -> bytes:
    """What a value belongs to, and is opened for alone: `tenant|name|version`. No part holds a `|`."""
    return f"{tenant_id.hex}|{name}|{version}".encode()


def seal(key: bytes, value: bytes, bound: bytes) -> bytes:
    """Encrypt a value for what it is bound to."""
    nonce = ids.new_key(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, value, bound)


def unseal(key: bytes, sealed: bytes, bound: bytes) -> bytes:
    """The value. Raises `Damaged` when it was changed, cut off, sealed by another key, or moved from another place."""
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise _damaged("it is cut off")
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
    except InvalidTag:
        raise _damaged("it was changed, moved here from another name, version or tenant, or sealed by another key") from None


def _damaged(reason: str) -> Damaged:
    return Damaged(f"a stored secret can't be opened: {reason}", hint="Set the secret again; look for who can write to the database.")
