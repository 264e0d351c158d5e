"""Bearer tokens (JWT) by the rules of RFC 8725: what is read of one, and every check that it must pass. Pure: no keys are fetched here.

Each check is a function by itself, so that a test can leave one out and see that a forged token then gets in. What a refusal says
names the check, never a value of the token or of a key.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec
from joserfc.util import urlsafe_b64decode

from hansa.auth.jwks import VerifyingKey
from hansa.errors import Unauthenticated

LEEWAY = 30.0
"""Seconds by which clocks may differ."""
MAX_BYTES = 16_384
MAX_USER, MAX_GROUPS = 200, 200
MAX_ISSUER = 512
"""Characters of an issuer's address, as a Tenant may name it."""
ID_TOKEN_CLAIMS = frozenset({"nonce", "at_hash", "c_hash"})
Claims = dict[str, Any]


class Header(msgspec.Struct, frozen=True):
    """As much of a token's header as is believed. `jku`, `jwk` and `x5u` are not even read: a token brings no keys."""

    alg: str = ""
    typ: str = ""
    kid: str = ""
    crit: Any = None


class Presented(msgspec.Struct, frozen=True):
    """A token as it came; nothing of it is believed before `check`."""

    header: Header
    claims: Claims
    signed: bytes
    signature: bytes

    @property
    def issuer(self) -> str:
        """Who is said to have made it; empty: nobody, or what is no address of anybody, for which nothing is looked up or kept."""
        named = self.claims.get("iss")
        return named if isinstance(named, str) and len(named) <= MAX_ISSUER and named.isprintable() else ""

    @property
    def audiences(self) -> frozenset[str]:
        """For whom it is said to be."""
        aud = self.claims.get("aud")
        listed = cast("list[Any]", aud) if isinstance(aud, list) else [aud]
        return frozenset(each for each in listed if isinstance(each, str))


class Expected(msgspec.Struct, frozen=True):
    """What a token is held against. `type`: the `typ` of the issuer's access tokens; `now`: seconds since 1970."""

    issuer: str
    audience: str
    type: str
    key: VerifyingKey
    now: float


class Person(msgspec.Struct, frozen=True):
    """Whom a token names, as its issuer calls them."""

    user: str
    groups: tuple[str, ...]


def read(text: str) -> Presented:
    """Take a token apart. Raises `Unauthenticated` when it has not the form of one."""
    parts = text.encode("utf-8", "replace").split(b".")
    if len(parts) != 3 or len(text) > MAX_BYTES:
        raise _refused("the token does not have the form header.claims.signature", "Send an API key, or an access token, whole.")
    try:
        header, claims, signature = (urlsafe_b64decode(part) for part in parts)
        return Presented(
            msgspec.json.decode(header, type=Header), msgspec.json.decode(claims, type=Claims), parts[0] + b"." + parts[1], signature
        )
    except (ValueError, RecursionError) as error:  # what msgspec and binascii raise are ValueErrors
        raise _refused("the token can't be decoded", "Copy it again, whole.") from error


def _type(token: Presented, expected: Expected) -> str | None:
    given = token.header.typ.lower().removeprefix("application/")
    if given != expected.type.lower():
        return f"the token's typ is not {expected.type}: is it an access token?"
    # A provider that marks no access tokens gives ID tokens the same type; those are for clients, never for an API.
    if expected.type == "JWT" and ID_TOKEN_CLAIMS & token.claims.keys():
        return "the token is an ID token, not an access token"
    return None


def _critical(token: Presented, expected: Expected) -> str | None:
    return "the token's header has critical parts that are not known here" if token.header.crit is not None else None


def _algorithm(token: Presented, expected: Expected) -> str | None:
    return None if token.header.alg in expected.key.names else "the token's alg is not that of its key"


def _signature(token: Presented, expected: Expected) -> str | None:
    return None if expected.key.verifies(token.signed, token.signature) else "the token's signature is wrong"


def _issuer(token: Presented, expected: Expected) -> str | None:
    return None if token.issuer == expected.issuer else "the token's issuer (iss) is another"


def _audience(token: Presented, expected: Expected) -> str | None:
    return None if expected.audience in token.audiences else "the token's audience (aud) is another"


def _expiry(token: Presented, expected: Expected) -> str | None:
    until = _moment(token.claims.get("exp"))
    if until is None:
        return "the token has no expiry (exp)"
    return None if expected.now < until + LEEWAY else "the token has expired (exp)"


def _beginning(token: Presented, expected: Expected) -> str | None:
    for name in ("nbf", "iat"):
        if name not in token.claims:
            continue
        since = _moment(token.claims[name])
        if since is None or since - LEEWAY > expected.now:
            return f"the token is not valid yet ({name})"
    return None


Check = Callable[[Presented, Expected], str | None]
CHECKS: Mapping[str, Check] = {
    "type": _type,
    "critical": _critical,
    "algorithm": _algorithm,
    "signature": _signature,
    "issuer": _issuer,
    "audience": _audience,
    "expiry": _expiry,
    "beginning": _beginning,
}
"""Every check, in its order: what is wrong with the token, or None."""


def check(token: Presented, expected: Expected, checks: Mapping[str, Check] = CHECKS) -> float:
    """Check a token; until when it is good, in seconds since 1970, leeway included. Raises `Unauthenticated` with what is wrong."""
    for each in checks.values():
        wrong = each(token, expected)
        if wrong is not None:
            raise _refused(wrong, "Get a new token; `hansa login` does that.")
    return (_moment(token.claims.get("exp")) or expected.now) + LEEWAY


def person(claims: Claims, *, user: str, groups: str) -> Person:
    """Whom checked claims name, by the claims that the tenant has said to hold it. Raises `Unauthenticated`."""
    name = claims.get(user)
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_USER or not name.isprintable():
        raise _refused(f"the token's claim {user} names no user", "The Tenant's identity.issuers[].claims.user says which claim does.")
    if user == "email" and claims.get("email_verified") is not True:
        raise _refused("the token's email is not verified (email_verified)", "Let the issuer verify it, or name another claim.")
    listed: Any = claims.get(groups, [])
    names = cast("list[Any]", listed) if isinstance(listed, list) else [listed]
    if len(names) > MAX_GROUPS or not all(isinstance(each, str) and len(each) <= MAX_USER for each in names):
        raise _refused(f"the token's claim {groups} is not a list of up to {MAX_GROUPS} names", "Let the issuer send fewer groups.")
    return Person(name, tuple(names))


def _moment(value: Any) -> float | None:
    """A time as seconds since 1970, if it is one at all."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**53:  # which no NaN is either
        return None
    return float(value)


def _refused(detail: str, hint: str) -> Unauthenticated:
    return Unauthenticated(detail, hint=hint)
