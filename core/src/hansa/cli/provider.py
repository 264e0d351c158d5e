"""An OpenID provider as the command line speaks to it: discovery, the device flow (RFC 8628), renewing and revoking tokens.

Knows no files and no Hansa server. Warning: everything it is sent comes from whom the person at the terminal named, and goes nowhere
but by https (or to this very machine).
"""

import time
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from hansa import clock
from hansa.egress.local import open_local_client
from hansa.errors import Forbidden, Invalid, Unauthenticated, Unavailable

T = TypeVar("T")
SECONDS = 15.0
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Endpoints(msgspec.Struct, frozen=True):
    """Where a provider does what, as its discovery document says."""

    issuer: str
    token_endpoint: str
    device_authorization_endpoint: str = ""
    revocation_endpoint: str = ""


class Device(msgspec.Struct, frozen=True):
    """A log-in that was begun here and is to be approved elsewhere."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str = ""
    expires_in: float = 600.0
    interval: float = 5.0


class Tokens(msgspec.Struct, frozen=True):
    """What a provider grants. `expires_in`: seconds; `refresh_token`: empty when it can't be renewed."""

    access_token: str
    expires_in: float = 300.0
    refresh_token: str = ""


class _Refusal(msgspec.Struct, frozen=True):
    error: str = ""
    error_description: str = ""


def discover(issuer: str) -> Endpoints:
    """What a provider says of itself. Raises `Invalid` for an address that will not do, `Unavailable`."""
    found = _decoded(_send("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration"), Endpoints)
    if found.issuer != issuer:
        raise Invalid(f"what answers at {issuer} says that it is {found.issuer}", hint="Give --issuer as the provider says it.")
    for address in (found.token_endpoint, found.device_authorization_endpoint, found.revocation_endpoint):
        if address:
            _checked(address)
    return found


def begin(at: Endpoints, client_id: str, *, scope: str, audience: str) -> Device:
    """Begin a log-in. Raises `Invalid` when the provider does not do that, or not for this client."""
    if not at.device_authorization_endpoint:
        raise Invalid(f"{at.issuer} has no device authorization endpoint", hint="Let it allow the device flow (RFC 8628).")
    form = {"client_id": client_id, "scope": scope} | ({"audience": audience} if audience else {})
    device = _decoded(_send("POST", at.device_authorization_endpoint, form), Device)
    _checked(device.verification_uri_complete or device.verification_uri)
    return device


def wait(at: Endpoints, client_id: str, device: Device, *, pause: Callable[[float], None] = time.sleep) -> Tokens:
    """Wait until the person has approved. Raises `Forbidden` when they refuse, `Unauthenticated` when they take too long."""
    form = {"grant_type": DEVICE_GRANT, "device_code": device.device_code, "client_id": client_id}
    until, interval = clock.monotonic() + device.expires_in, max(device.interval, 0.2)
    while clock.monotonic() < until:
        pause(interval)
        try:
            return _decoded(_send("POST", at.token_endpoint, form), Tokens)
        except _Refused as refused:
            match refused.word:
                case "authorization_pending":
                    continue
                case "slow_down":
                    interval += 5.0
                case "access_denied":
                    raise Forbidden("the log-in was refused in the browser") from None
                case "expired_token":
                    break
                case _:
                    raise
        except Unavailable:  # as RFC 8628 wants it: ask less often
            interval *= 2
    raise Unauthenticated("nobody approved the log-in in time", hint="Run `hansa login` again.")


def renew(token_endpoint: str, client_id: str, refresh_token: str) -> Tokens:
    """New tokens for a refresh token. Raises `Unauthenticated` when it is good no more, `Unavailable`."""
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": client_id}
    try:
        return _decoded(_send("POST", token_endpoint, form), Tokens)
    except _Refused as refused:
        raise Unauthenticated(f"the log-in has ended: {refused.detail}", hint="Run `hansa login` again.") from refused


def revoke(endpoint: str, client_id: str, refresh_token: str) -> None:
    """Tell the provider that a refresh token is not needed any more (RFC 7009). Raises `HansaError`."""
    _send("POST", endpoint, {"token": refresh_token, "token_type_hint": "refresh_token", "client_id": client_id})


class _Refused(Invalid):
    """The provider has refused; `word` is its code."""

    word = ""


def _send(method: str, address: str, form: Mapping[str, str] | None = None) -> bytes:
    _checked(address)
    parts = urlsplit(address)
    headers = {"accept": "application/json"} | ({"content-type": "application/x-www-form-urlencoded"} if form is not None else {})
    body = urlencode(form or {}).encode()
    path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    with open_local_client(f"{parts.scheme}://{parts.netloc}", {}, SECONDS) as client:
        answer = client.request(method, path, body=body, headers=headers)
    if answer.status == 200:
        return answer.body
    if answer.status >= 500 or answer.status == 429:
        raise Unavailable(f"{parts.netloc} answers {answer.status}")
    try:
        told = msgspec.json.decode(answer.body, type=_Refusal)
    except msgspec.DecodeError:
        told = _Refusal()
    said = ": ".join(filter(None, (told.error, told.error_description))) or f"it answers {answer.status}"
    refused = _Refused(f"{parts.netloc} refuses: {said[:300]}")
    refused.word = told.error
    raise refused


def _checked(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK):
        return
    raise Invalid(f"{address[:200]!r} is no address of a provider", hint="It begins with https://.")


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unavailable(f"the provider's answer can't be read: {error}") from error
