"""What `hansa sync` serves: `/livez`, `/readyz`, and `/webhook`, by which a Git server says that something is new.

Whoever calls it with the secret makes us look, and nothing else: of the body only its signature is read. So a call that is repeated
does no harm. Must not know Git.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from hansa.apply.sync.model import Report
from hansa.apply.sync.service import Service
from hansa.errors import Misconfigured
from hansa.server.problem import OWN_HEADERS, encoded

log = structlog.stdlib.get_logger("hansa.sync")
MAX_BODY = 5 * 1024 * 1024
"""Bytes; a push of many commits is far smaller."""
SHORTEST_SECRET = 16

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class Receiver:
    """An ASGI application."""

    def __init__(self, service: Service, secret_file: str, *, max_body: int = MAX_BODY) -> None:
        self._service = service
        self._secret_file = secret_file
        self._max_body = max_body
        if secret_file:
            read_secret(secret_file)

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        method, path = scope["method"], scope["path"]
        if path in ("/livez", "/readyz") and method in ("GET", "HEAD"):
            await self._health(path, send)
        elif path == "/webhook" and method == "POST":
            refusal = await self._called(dict(scope["headers"]), receive)
            await (_answer(send, 202, {"status": "looking"}) if refusal is None else _answer(send, *refusal))
        else:
            status = 405 if path in ("/livez", "/readyz", "/webhook") else 404
            await _answer(send, status, {"detail": "there are GET /livez, GET /readyz and POST /webhook"})

    async def _health(self, path: str, send: Send) -> None:
        service = self._service
        well = service.is_alive and (path == "/livez" or service.is_ready)
        report = service.report
        await _answer(send, 200 if well else 503, _state(report) if report else {"state": "Starting"})

    async def _called(self, headers: Mapping[bytes, bytes], receive: Receive) -> tuple[int, Mapping[str, str]] | None:
        """Why a call is refused; None: we look."""
        if not self._secret_file:
            return 404, {"detail": "no webhook is received here: --webhook-secret-file was not given"}
        body = await _body(headers, receive, self._max_body)
        if body is None:
            return 413, {"detail": f"the body is larger than {self._max_body} bytes"}
        try:
            secret = read_secret(self._secret_file)
        except Misconfigured as error:
            log.warning("sync.webhook_secret", error=error.detail)
            return 503, {"detail": "the secret of this webhook can't be read"}
        if not is_signed(headers, body, secret):
            return 403, {"detail": "the call is not signed with our secret: X-Hub-Signature-256 or X-Gitlab-Token"}
        self._service.news.set()
        return None


def _state(report: Report) -> dict[str, str | int]:
    """How the source is, for those who may only look: no text that names anything."""
    counts = {"files": report.files, "objects": report.objects, "errors": len(report.record.errors), "waiting": len(report.waiting)}
    return {"state": report.record.state, "commit": report.record.commit, **counts}


def is_signed(headers: Mapping[bytes, bytes], body: bytes, secret: bytes) -> bool:
    """Whether GitHub's signature (Gitea's and Forgejo's too) or GitLab's token shows the secret; the time it takes tells nothing of it."""
    signature = b"sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest().encode()
    by_signature = hmac.compare_digest(headers.get(b"x-hub-signature-256", b"").strip(), signature)
    by_token = hmac.compare_digest(headers.get(b"x-gitlab-token", b"").strip(), secret)
    return by_signature or by_token


def read_secret(path: str) -> bytes:
    """The secret of a file, read anew at each call, so that it can be renewed. Raises `Misconfigured`."""
    try:
        secret = Path(path).read_bytes().strip()
    except OSError as error:
        raise Misconfigured(f"the webhook's secret {path} can't be read: {error.strerror}") from error
    if len(secret) < SHORTEST_SECRET:
        raise Misconfigured(
            f"the webhook's secret in {path} is shorter than {SHORTEST_SECRET} bytes", hint="`openssl rand -hex 32` makes one."
        )
    return secret


async def _body(headers: Mapping[bytes, bytes], receive: Receive, most: int) -> bytes | None:
    """The whole body, or None as soon as it is too large."""
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > most:
        return None
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message["type"] == "http.request" and bool(message.get("more_body"))
        if len(body) > most:
            return None
    return bytes(body)


async def _answer(send: Send, status: int, value: Mapping[str, str | int]) -> None:
    body = msgspec.json.encode(value)
    headers = encoded({"content-type": "application/json", "content-length": str(len(body)), **OWN_HEADERS})
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
