"""What a refusal looks like on the wire, RFC 9457, whoever refuses: the server before there is a request, or the API.

Must not know what a route is.
"""

import re
import secrets
from collections.abc import Iterable

import msgspec

from hansa.errors import FieldError

PROBLEM = "application/problem+json"
CODES = {
    400: "malformed",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "too_large",
    414: "address_too_long",
    415: "unsupported_media_type",
    429: "limit_exceeded",
    431: "headers_too_large",
    503: "unavailable",
}
SANE_ID = re.compile(rb"[A-Za-z0-9._:~-]{1,128}")
STEADY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}
"""On every answer, whatever it is."""
STRICT_TRANSPORT = {"strict-transport-security": "max-age=63072000; includeSubDomains"}
"""On every answer over TLS: browsers come back by TLS only, for two years."""
OWN_HEADERS = {"cache-control": "no-store", "content-security-policy": "default-src 'none'; frame-ancestors 'none'"}
"""On every answer that says nothing else itself."""
Headers = Iterable[tuple[bytes, bytes]]


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457, with Hansa's own members: `code` for programs, `hint` says what to do, `errors` names each place."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    trace_id: str
    request_id: str
    retryable: bool
    hint: str | None = None
    errors: tuple[FieldError, ...] = ()


def trace_id(headers: Headers) -> str:
    """The caller's W3C trace id, or a new one."""
    parts = next((value.decode("latin-1") for name, value in headers if name == b"traceparent"), "").split("-")
    if len(parts) == 4 and len(parts[1]) == 32 and set(parts[1]) <= set("0123456789abcdef") and parts[1] != "0" * 32:
        return parts[1]
    return secrets.token_hex(16)


def request_id(headers: Headers) -> str:
    """The caller's `X-Request-Id` if it is 1 to 128 letters, digits and `._:~-`, so that it harms no log; else a new one."""
    return next((value.decode() for name, value in headers if name == b"x-request-id" and SANE_ID.fullmatch(value)), None) or (
        secrets.token_hex(8)
    )


class Refusal(msgspec.Struct, frozen=True):
    """Why something is not let in, before it is known what it is."""

    status: int
    title: str
    detail: str
    hint: str | None = None
    retry_after: int | None = None

    @property
    def code(self) -> str:
        return CODES[self.status]

    def answer(self, headers: Headers, path: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Headers and body of the answer, after which the connection is closed."""
        given = list(headers)
        number = request_id(given)
        problem = Problem(
            type=f"urn:hansa:error:{self.code}",
            title=self.title,
            status=self.status,
            detail=self.detail,
            instance=path,
            code=self.code,
            trace_id=trace_id(given),
            request_id=number,
            retryable=self.retry_after is not None,
            hint=self.hint,
        )
        body = msgspec.json.encode(problem)
        told = {"content-type": PROBLEM, "content-length": str(len(body)), "connection": "close", "x-request-id": number, **OWN_HEADERS}
        if self.retry_after is not None:
            told["retry-after"] = str(self.retry_after)
        return encoded(told), body


def encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """As ASGI wants them."""
    return [(name.encode(), value.encode()) for name, value in headers.items()]
