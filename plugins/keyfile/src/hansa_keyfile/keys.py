"""Key-encryption keys in a file, one a line: the first wraps, all unwrap. AES-256-GCM, bound to the tenant and the key.

Warning: whoever reads the file and the database reads every secret; a backup of one should not lie beside the other.
"""

import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hansa_sdk import KeyProvider, SecretRefused, SecretServices, SecretUnavailable, WrappedKey

SETTING = "HANSA_SECRETS_KEY_FILE"
SHORTEST = 32
NONCE_BYTES = 12


class FileKeys:
    """Implements `hansa_sdk.KeyProvider` over a file, which is read again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._keys: Mapping[str, bytes] = {}

    async def current(self) -> str:
        return next(iter(self._read()))

    async def wrap(self, key: bytes, tenant: str) -> WrappedKey:
        key_id, kek = next(iter(self._read().items()))
        nonce = os.urandom(NONCE_BYTES)
        return WrappedKey(key_id, nonce + AESGCM(kek).encrypt(nonce, key, _bound(tenant, key_id)))

    async def unwrap(self, wrapped: WrappedKey, tenant: str) -> bytes:
        keys = self._read()
        if wrapped.key_id not in keys:
            raise SecretRefused(
                f"the key {wrapped.key_id} is not in the file {self._path}", hint="Put back the line that was taken out, from a backup."
            )
        try:
            nonce, sealed = wrapped.data[:NONCE_BYTES], wrapped.data[NONCE_BYTES:]
            return AESGCM(keys[wrapped.key_id]).decrypt(nonce, sealed, _bound(tenant, wrapped.key_id))
        except (InvalidTag, ValueError):
            raise SecretRefused(
                f"a data key wrapped by {wrapped.key_id} is damaged, or another tenant's", hint="Restore the row from a backup."
            ) from None

    async def rewrap(self, wrapped: WrappedKey, tenant: str) -> WrappedKey:
        return await self.wrap(await self.unwrap(wrapped, tenant), tenant)

    def _read(self) -> Mapping[str, bytes]:
        try:
            found = self._path.stat()
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen != self._seen:
                self._keys, self._seen = _keys(self._path.read_text()), seen
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise SecretUnavailable(f"the file {self._path} can't be read: {reason}", hint=f"{SETTING} names it.") from None
        if not self._keys:
            raise SecretRefused(
                f"the file {self._path} holds no key of {SHORTEST} characters or more", hint="Put back the file; see docs/secrets.md."
            )
        return self._keys


def _keys(text: str) -> Mapping[str, bytes]:
    """Keys by id, in the order of the lines. A line that is too short is left out: it could be guessed."""
    lines = [line.strip() for line in text.splitlines()]
    return {_id(line): _derived(line) for line in lines if len(line) >= SHORTEST and not line.startswith("#")}


def _id(line: str) -> str:
    """What a key is called: nothing of the key follows from it."""
    return hashlib.sha256(b"hansa key id\0" + line.encode()).hexdigest()[:12]


def _derived(line: str) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"hansa key-encryption key").derive(line.encode())


def _bound(tenant: str, key_id: str) -> bytes:
    return f"hansa data key|{tenant}|{key_id}".encode()


@asynccontextmanager
async def open_keys(services: SecretServices) -> AsyncIterator[KeyProvider]:
    """The keys of the file that the setting names."""
    path = services.settings.get("key_file", "")
    if not path:
        raise SecretRefused(f"{SETTING} is not set", hint="Name a file with a key of 32 characters or more; `hansa up` makes one.")
    yield FileKeys(Path(path))
