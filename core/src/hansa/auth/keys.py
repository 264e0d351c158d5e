"""The form of an API key: `hsa_<env>_<12 id>_<30 secret><6 checksum>`, all base62.

The checksum is the CRC32 of all that stands before it, so that a typo is refused without a query and scanners can tell
a real key. 30 base62 characters are 178 bits: no slow hash is needed, a peppered SHA-256 will do.
"""

import hashlib
import hmac
import re
import string
import zlib
from pathlib import Path

import msgspec

from hansa.errors import Misconfigured, Unauthenticated
from hansa.ids import new_secret

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
MARK = 4
FORM = re.compile(r"hsa_([a-z]{2,8})_([0-9A-Za-z]{12})_([0-9A-Za-z]{30})([0-9A-Za-z]{6})")


class ParsedKey(msgspec.Struct, frozen=True):
    """A key whose form and checksum are right; whether it exists is not known yet."""

    id: str
    secret: str


def make(environment: str, *, mark: str = "") -> tuple[str, str, str]:
    """A new key: (text to show once, id, secret); its id begins with the `mark` of its database."""
    key_id, secret = mark + new_secret(12 - len(mark), BASE62), new_secret(30, BASE62)
    body = f"hsa_{environment}_{key_id}_{secret}"
    return body + _checksum(body), key_id, secret


def mark_of(tenant: str) -> str:
    """How the ids of keys begin that a tenant's own database keeps, so that they are looked for there; empty for the platform's."""
    return "".join(BASE62[byte % 62] for byte in hashlib.sha256(tenant.encode()).digest()[:MARK]) if tenant else ""


def parse(text: str) -> ParsedKey:
    """Check form and checksum. Raises `Unauthenticated` saying which failed."""
    match = FORM.fullmatch(text)
    if match is None:
        raise Unauthenticated(
            "the API key does not have the form hsa_<env>_<id>_<secret>",
            hint="Copy the whole key; `hansa up` wrote it to its api-key file.",
        )
    body, checksum = text[:-6], match[4]
    if not hmac.compare_digest(_checksum(body), checksum):
        raise Unauthenticated("the checksum of the API key is wrong (typo or truncated?)", hint="Copy the key again, whole.")
    return ParsedKey(id=match[2], secret=match[3])


def digest(secret: str, pepper: bytes) -> bytes:
    """What is stored of a key."""
    return hashlib.sha256(secret.encode() + pepper).digest()


def read_pepper(path: str) -> bytes:
    """The pepper of this installation. Raises `Misconfigured` when there is none: an unpeppered hash is not what we promise."""
    try:
        pepper = Path(path).read_bytes().strip() if path else b""
    except OSError as error:
        raise Misconfigured(f"HANSA_KEY_PEPPER_FILE {path} can't be read: {error.strerror}") from error
    if len(pepper) < 16:
        raise Misconfigured(
            "HANSA_KEY_PEPPER_FILE must name a file of at least 16 bytes", hint="`hansa up` makes one; else: openssl rand -hex 32."
        )
    return pepper


def _checksum(body: str) -> str:
    number, text = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, rest = divmod(number, 62)
        text = BASE62[rest] + text
    return text
