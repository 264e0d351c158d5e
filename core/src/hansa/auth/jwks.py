"""The keys of an issuer, as its JWKS document has them. Pure.

A key fixes its algorithm: what a token's header says can't choose another one. Keys of other algorithms, private and symmetric ones,
and two of one name are left out.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
from joserfc.errors import JoseError
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.util import base64_to_int

MAX_KEYS = 100
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
MAX_NAME = 256


class VerifyingKey(msgspec.Struct, frozen=True):
    """A public key with its one algorithm. `names`: what headers may call that; `mark`: the same for the same key, always."""

    names: frozenset[str]
    algorithm: JWSAlgModel
    key: RSAKey | ECKey | OKPKey
    mark: str

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        """Whether this key has made the signature."""
        try:
            return self.algorithm.verify(signed, signature, self.key)
        except (JoseError, ValueError):
            return False


class _Jwk(msgspec.Struct, frozen=True):
    """As much of a key as is read; `d` and `k` would be secrets."""

    kty: str
    kid: str = ""
    use: str = "sig"
    key_ops: tuple[str, ...] = ("verify",)
    alg: str = ""
    crv: str = ""
    n: str = ""
    e: str = ""
    x: str = ""
    y: str = ""
    d: Any = None
    k: Any = None


class _Jwks(msgspec.Struct, frozen=True):
    keys: list[msgspec.Raw]


def read(document: bytes) -> Mapping[str, VerifyingKey]:
    """The keys of a document that can be used, by their `kid`. Raises `ValueError` for what is no JWKS."""
    try:
        listed = msgspec.json.decode(document, type=_Jwks).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("it is not a JWKS document") from error
    if len(listed) > MAX_KEYS:
        raise ValueError(f"it holds more than {MAX_KEYS} keys")
    found = [each for each in map(_jwk, listed) if each is not None]
    names = Counter(each.kid for each in found)
    made = {each.kid: _made(each) for each in found if names[each.kid] == 1}
    return {kid: key for kid, key in made.items() if key is not None}


def _jwk(raw: msgspec.Raw) -> _Jwk | None:
    try:
        found = msgspec.json.decode(raw, type=_Jwk)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    signs = found.use == "sig" and "verify" in found.key_ops
    return found if signs and found.d is None and found.k is None and len(found.kid) <= MAX_NAME else None


def _made(jwk: _Jwk) -> VerifyingKey | None:
    try:
        match (jwk.kty, jwk.crv, jwk.alg):
            case ("OKP", "Ed25519", "" | "EdDSA" | "Ed25519"):
                names, name = frozenset({"EdDSA", "Ed25519"}), "Ed25519"
                key = OKPKey.import_key({"kty": jwk.kty, "crv": jwk.crv, "x": jwk.x})
            case ("EC", "P-256", "" | "ES256"):
                names, name = frozenset({"ES256"}), "ES256"
                key = ECKey.import_key({"kty": jwk.kty, "crv": jwk.crv, "x": jwk.x, "y": jwk.y})
            case ("RSA", _, "" | "RS256"):
                names, name = frozenset({"RS256"}), "RS256"
                if not MIN_RSA_BITS <= base64_to_int(jwk.n).bit_length() <= MAX_RSA_BITS:
                    return None
                key = RSAKey.import_key({"kty": jwk.kty, "n": jwk.n, "e": jwk.e})
            case _:
                return None
        return VerifyingKey(names, JWSRegistry.algorithms[name], key, key.thumbprint())
    except (JoseError, ValueError, TypeError):
        return None
