"""Signatures of checkpoints, Ed25519. The one place of the audit trail that knows `cryptography`.

A key is made of the text of a file, as a pepper is; what others need to judge a signature is the public key, 64 hex digits.
"""

import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hansa.errors import Misconfigured

LEAST_BYTES = 16


class Signer:
    """Signs with the key that follows from a secret text."""

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"hansa.audit.key\x00" + secret).digest())
        self.public_key = self._key.public_key().public_bytes_raw().hex()

    def sign(self, text: bytes) -> str:
        """The signature, in hex."""
        return self._key.sign(text).hex()


def read_signer(path: str) -> Signer | None:
    """The signer of a file; None: no file is named. Raises `Misconfigured` when it can't be used."""
    if not path:
        return None
    try:
        secret = Path(path).read_bytes().strip()
    except OSError as error:
        raise Misconfigured(f"HANSA_AUDIT_KEY_FILE {path} can't be read: {error.strerror}") from error
    if len(secret) < LEAST_BYTES:
        raise Misconfigured(f"HANSA_AUDIT_KEY_FILE must name a file of at least {LEAST_BYTES} bytes", hint="openssl rand -hex 32 > FILE")
    return Signer(secret)


def is_signed(text: bytes, signature: str, public_key: str) -> bool:
    """Whether the signature of a text is that of the key's owner."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(bytes.fromhex(signature), text)
    except (InvalidSignature, ValueError):
        return False
    return True
