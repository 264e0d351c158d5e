"""Forged tokens are refused, each by the check that is there for it: with that check left out, the same token gets in."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.util import int_to_base64

from doubles.oidc_provider import Signer, signed
from hansa.auth import jwks, tokens
from hansa.auth.jwks import VerifyingKey
from hansa.auth.tokens import CHECKS, Expected
from hansa.errors import Unauthenticated

NOW = 1_800_000_000
ISSUER, AUDIENCE = "https://id.acme.example", "hansa"
ES, ED, RS, STRANGER = Signer("ES256"), Signer("EdDSA"), Signer("RS256"), Signer("ES256")
Json = dict[str, Any]


def document(*keys: Json) -> bytes:
    return json.dumps({"keys": keys}).encode()


def verifying(signer: Signer) -> VerifyingKey:
    return jwks.read(document(signer.public()))[signer.kid]


def expected(signer: Signer = ES, **other: Any) -> Expected:
    return msgspec.structs.replace(Expected(ISSUER, AUDIENCE, "at+jwt", verifying(signer), float(NOW)), **other)


def claims(**other: Any) -> Json:
    made: Json = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": NOW - 10, "exp": NOW + 300, **other}
    return {name: value for name, value in made.items() if value is not None}


def token(by: Signer = ES, *, header: Json | None = None, **other: Any) -> str:
    """A right token but for what is said here."""
    named = {"alg": by.algorithm, "typ": "at+jwt", "kid": by.kid, **(header or {})}
    return signed(by.key, {name: value for name, value in named.items() if value is not None}, claims(**other), by.algorithm)


def changed(text: str, part: int) -> str:
    """The same with another character in one part."""
    parts = text.split(".")
    parts[part] = parts[part][:-2] + ("A" if parts[part][-2] != "A" else "E") + parts[part][-1]
    return ".".join(parts)


FORGED: dict[str, tuple[str, Callable[[], str]]] = {
    "of an ID token's type": ("type", lambda: token(header={"typ": "JWT"})),
    "of no type": ("type", lambda: token(header={"typ": None})),
    "with a critical part": ("critical", lambda: token(header={"crit": ["b64"], "b64": False})),
    "with an empty critical part": ("critical", lambda: token(header={"crit": []})),
    "that says none": ("algorithm", lambda: token(header={"alg": "none"})),
    "that says HS256": ("algorithm", lambda: token(header={"alg": "HS256"})),
    "that says another curve": ("algorithm", lambda: token(header={"alg": "ES384"})),
    "that says nothing of its algorithm": ("algorithm", lambda: token(header={"alg": None})),
    "that a stranger signed": ("signature", lambda: token(STRANGER, header={"kid": ES.kid})),
    "without a signature": ("signature", lambda: token().rpartition(".")[0] + "."),
    "with another's signature": ("signature", lambda: token().rpartition(".")[0] + "." + token(sub="eve").rpartition(".")[2]),
    "with changed claims": ("signature", lambda: ".".join([token().split(".")[0], token(sub="eve").split(".")[1], token().split(".")[2]])),
    "of another issuer": ("issuer", lambda: token(iss="https://id.acme.example/")),
    "of no issuer": ("issuer", lambda: token(iss=None)),
    "for another audience": ("audience", lambda: token(aud="hansa-staging")),
    "for other audiences": ("audience", lambda: token(aud=["a", "b", 1])),
    "for nobody": ("audience", lambda: token(aud=None)),
    "that has expired": ("expiry", lambda: token(exp=NOW - 31)),
    "that never expires": ("expiry", lambda: token(exp=None)),
    "that expires at a text": ("expiry", lambda: token(exp="4102444800")),
    "that expires at true": ("expiry", lambda: token(exp=True)),
    "that expires beyond all numbers": ("expiry", lambda: token(exp=10**400)),
    "from the future": ("beginning", lambda: token(iat=NOW + 60)),
    "not valid yet": ("beginning", lambda: token(nbf=NOW + 60)),
    "valid from a text on": ("beginning", lambda: token(nbf="now")),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_refused_by_its_check_and_by_no_other(name: str) -> None:
    check, forge = FORGED[name]
    presented = tokens.read(forge())
    with pytest.raises(Unauthenticated) as refused:
        tokens.check(presented, expected())
    for secret in (ES.kid, "ada", "eve", ISSUER, AUDIENCE, str(NOW)):
        assert secret not in refused.value.detail.replace("(aud)", "").replace("(iss)", "")
    without = {each: made for each, made in CHECKS.items() if each != check}
    tokens.check(presented, expected(), without)  # so it was this check alone that kept it out


def test_every_check_has_a_token_that_only_it_refuses() -> None:
    assert {check for check, _ in FORGED.values()} == CHECKS.keys()


def test_the_public_key_is_no_secret_to_sign_with() -> None:
    for by in (ES, RS):
        confused = signed(_secret(by), {"alg": "HS256", "typ": "at+jwt", "kid": by.kid}, claims(), "HS256")
        for checks in (CHECKS, {each: made for each, made in CHECKS.items() if each != "algorithm"}):
            with pytest.raises(Unauthenticated):
                tokens.check(tokens.read(confused), expected(by), checks)


def _secret(by: Signer) -> Any:
    from_key = jwks.read(document(by.public()))[by.kid].key.as_pem()
    return _Octets(from_key)


class _Octets:
    """A symmetric key, as joserfc's HMAC wants it."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def get_op_key(self, operation: str) -> bytes:
        return self._value


@pytest.mark.parametrize("by", [ES, ED, RS], ids=lambda by: by.algorithm)
def test_a_right_token_is_taken_until_its_time_is_over(by: Signer) -> None:
    presented = tokens.read(token(by))
    assert tokens.check(presented, expected(by)) == NOW + 330
    assert tokens.check(presented, expected(by, now=NOW + 329.0)) == NOW + 330
    with pytest.raises(Unauthenticated, match="expired"):
        tokens.check(presented, expected(by, now=NOW + 330.0))
    tokens.check(tokens.read(token(by, aud=["other", AUDIENCE])), expected(by))
    tokens.check(tokens.read(token(by, header={"typ": "application/AT+JWT"})), expected(by))
    own_keys = {"jku": "https://evil.example/jwks", "x5u": "https://evil.example", "jwk": STRANGER.public()}
    tokens.check(tokens.read(token(by, header=own_keys)), expected(by))


def test_ed25519_has_two_names() -> None:
    tokens.check(tokens.read(token(ED, header={"alg": "Ed25519"})), expected(ED))


def test_where_access_tokens_are_not_marked_an_id_token_is_still_refused() -> None:
    unmarked = {"typ": "JWT"}
    tokens.check(tokens.read(token(header=unmarked)), expected(type="JWT"))
    for claim in ("nonce", "at_hash", "c_hash"):
        with pytest.raises(Unauthenticated, match="ID token"):
            tokens.check(tokens.read(token(ES, header=unmarked, **{claim: "x"})), expected(type="JWT"))


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "a.b", "a.b.c", "a.b.c.d.e", "..", token() + ".", token()[1:], token() + "=", token().replace(".", " .", 1),
        signed(ES.key, {"alg": "ES256"}, b"[]", "ES256"),
        signed(ES.key, {"alg": "ES256"}, b"[" * 5000 + b"]" * 5000, "ES256"),
        signed(ES.key, {"alg": "ES256"}, b'{"iss":"\xff"}', "ES256"),
        signed(ES.key, {"alg": ["ES256"]}, claims(), "ES256"),
        token(sub="a" * 20_000),
    ],
    ids=[f"text-{number}" for number in range(15)],
)  # fmt: skip
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens.check(tokens.read(text), expected())


@pytest.mark.parametrize(
    "iss", ["https://a\x00.example", "https://\u202ea.example", "https://" + "a" * 505, ["https://a.example"], 7, None]
)
def test_what_is_no_address_is_nobodys(iss: Any) -> None:
    assert tokens.read(token(iss=iss)).issuer == ""
    assert tokens.read(token(iss="https://" + "a" * 504)).issuer


@given(st.integers(0, 2), st.integers(0, 10_000), st.sampled_from("ABCxyz019-_.="))
def test_no_character_can_be_changed(part: int, place: int, other: str) -> None:
    parts = token(exp=NOW + 300).split(".")
    before = parts[part]
    place %= len(before)
    parts[part] = before[:place] + other + before[place + 1 :]
    if parts[part] != before:
        with pytest.raises(Unauthenticated):
            tokens.check(tokens.read(".".join(parts)), expected())


def test_claims_say_who_it_is() -> None:
    named = tokens.person(claims(groups=["a", "b"]), user="sub", groups="groups")
    assert (named.user, named.groups) == ("ada", ("a", "b"))
    assert tokens.person(claims(roles="one"), user="sub", groups="roles").groups == ("one",)
    assert tokens.person(claims(), user="sub", groups="groups").groups == ()
    assert tokens.person(claims(email="a@b.example", email_verified=True), user="email", groups="groups").user == "a@b.example"


@pytest.mark.parametrize(
    "wrong",
    [
        {"sub": None}, {"sub": ""}, {"sub": 7}, {"sub": "a" * 201}, {"sub": "a\nb"}, {"sub": ["ada"]},
        {"groups": [1]}, {"groups": ["g"] * 201}, {"groups": {"a": 1}}, {"groups": ["g" * 201]},
    ],
    ids=str,
)  # fmt: skip
def test_claims_that_name_nobody_are_refused(wrong: Json) -> None:
    with pytest.raises(Unauthenticated):
        tokens.person(claims(**wrong), user="sub", groups="groups")


@pytest.mark.parametrize("verified", [None, False, "true", 1])
def test_an_email_that_nobody_has_verified_names_nobody(verified: Any) -> None:
    with pytest.raises(Unauthenticated, match="email_verified"):
        tokens.person(claims(email="eve@acme.example", email_verified=verified), user="email", groups="groups")


@pytest.mark.parametrize(
    "wrong",
    [
        {"kty": "oct", "k": "c2VjcmV0"}, {"use": "enc"}, {"key_ops": ["sign"]}, {"alg": "ES384"}, {"alg": "none"}, {"crv": "P-384"},
        {"x": "AA"}, {"x": 5}, {"d": "AA"}, {"kid": "k" * 257}, {"kty": "EC2"},
    ],
    ids=str,
)  # fmt: skip
def test_a_key_that_can_not_be_used_is_left_out_and_the_others_stay(wrong: Json) -> None:
    found = jwks.read(document({**ES.public(), **wrong}, ED.public()))
    assert found.keys() == {ED.kid}


def test_two_keys_of_one_name_are_both_left_out() -> None:
    assert jwks.read(document(ES.public(), {**STRANGER.public(), "kid": ES.kid})) == {}


def test_an_rsa_key_that_is_too_short_or_too_long_is_left_out() -> None:
    for size in (512, 1024, 2047, 8193, 100_000):
        odd = {"kty": "RSA", "kid": "s", "e": "AQAB", "n": int_to_base64(2**size - 1)}
        assert jwks.read(document(odd)) == {}, size


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"<html>", b'{"keys":{}}', b"[" * 100_000, document(*[ES.public()] * 101)])
def test_what_is_no_set_of_keys_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="it"):
        jwks.read(text)
