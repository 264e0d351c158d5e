"""What goes round every request and answer: its id, headers that browsers obey, and which pages of other origins may read answers.

Must not know any route. An answer that says something else itself, as the documentation page does, is left as it is.
"""

import re
from typing import Any

import structlog

from hansa.errors import Misconfigured
from hansa.server.problem import OWN_HEADERS, encoded, request_id

ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")
OWN = tuple(encoded(OWN_HEADERS))
REQUEST_ID = "request_id"
"""Where handlers find it in the state of their request."""
TO_READ = "x-request-id, retry-after, idempotency-replayed, content-disposition, etag"
PREFLIGHT = {
    "access-control-allow-methods": "GET, POST, PUT, DELETE",
    "access-control-allow-headers": "authorization, content-type, hansa-on-behalf-of, hansa-tenant, idempotency-key, last-event-id, "
    "traceparent, x-request-id",
    "access-control-max-age": "600",
    "content-length": "0",
}


class Envelope:
    """An ASGI application around the API."""

    def __init__(self, app: Any, origins: frozenset[bytes]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        number = scope["state"][REQUEST_ID] = request_id(headers)
        structlog.contextvars.bind_contextvars(request_id=number)
        more = [(b"x-request-id", number.encode())]
        if self._origins:
            more.append((b"vary", b"origin"))
            origin = next((value for name, value in headers if name == b"origin"), b"")
            if origin in self._origins:
                more += [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", TO_READ.encode())]
                if scope["method"] == "OPTIONS" and any(name == b"access-control-request-method" for name, _ in headers):
                    more = [each for each in more if each[0] != b"access-control-expose-headers"]
                    await send({"type": "http.response.start", "status": 204, "headers": [*more, *OWN, *encoded(PREFLIGHT)]})
                    await send({"type": "http.response.body", "body": b""})
                    return

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = list(message["headers"])
                names = {name for name, _ in given}
                message = {**message, "headers": [*given, *more, *(each for each in OWN if each[0] not in names)]}
            await send(message)

        await self._app(scope, receive, answer)


def origins(text: str) -> frozenset[bytes]:
    """The origins of a list. Raises `Misconfigured` for what is none."""
    found = [each.strip().lower() for each in text.split(",") if each.strip()]
    for each in found:
        if not ORIGIN.fullmatch(each):
            raise Misconfigured(
                f"HANSA_SERVER_CORS_ORIGINS: {each[:80]!r} is no origin",
                hint="An origin is a scheme, a host and perhaps a port, as in https://console.example.org; there is no `*`.",
            )
    return frozenset(each.encode() for each in found)
