"""Every error as RFC 9457 problem+json, whatever raised it. No handler builds an error answer of its own."""

import secrets
from typing import Any

import msgspec
import structlog
from litestar import Response
from litestar.exceptions import HTTPException

from hansa.api.services import AnyRequest, services
from hansa.errors import FieldError, HansaError, Unauthenticated

log = structlog.stdlib.get_logger("hansa.api")
CODES = {400: "malformed", 404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457, with Hansa's own members: `code` for programs, `hint` says what to do, `errors` names each place."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    trace_id: str
    retryable: bool
    hint: str | None = None
    errors: tuple[FieldError, ...] = ()


def trace_id(request: AnyRequest) -> str:
    """The caller's W3C trace id, or a new one: one a request, whoever asks for it."""
    state = request.scope["state"]
    if "trace_id" not in state:
        parts = request.headers.get("traceparent", "").split("-")
        known = len(parts) == 4 and len(parts[1]) == 32 and set(parts[1]) <= set("0123456789abcdef") and parts[1] != "0" * 32
        state["trace_id"] = parts[1] if known else secrets.token_hex(16)
    return state["trace_id"]


def on_hansa_error(request: AnyRequest, error: HansaError) -> Response[bytes]:
    """An error of the tree."""
    headers = {"retry-after": str(max(1, round(error.retry_after)))} if error.retry_after is not None else {}
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = f'Bearer error="invalid_token", error_description="{error.detail.replace(chr(34), chr(39))}"'
    problem = _problem(request, error.status, error.code, title=error.title, detail=error.detail)
    problem = msgspec.structs.replace(problem, retryable=error.retryable, hint=error.hint or None, errors=error.errors)
    return _answer(problem, headers)


def on_http_error(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """An error of the framework: no such route, wrong method, body over the limit."""
    status, headers = error.status_code, dict(error.headers or {})
    details = {
        404: f"there is nothing at {request.scope['path'][:200]}",
        405: f"{request.method} is not possible here",
        413: f"the body is larger than the {services(request).settings.server.body_bytes} bytes that are taken",
    }
    problem = _problem(request, status, CODES.get(status, "http_error"), title=error.detail, detail=details.get(status, error.detail))
    return _answer(problem, headers)


def on_any_error(request: AnyRequest, error: Exception) -> Response[bytes]:
    """A defect of ours: logged whole, told in one line with the trace id to ask for."""
    problem = _problem(
        request, 500, "internal", title="Internal error", detail="this is a defect of Hansa; the log has more under this trace_id"
    )
    log.error("api.broke", path=request.scope["path"], trace_id=problem.trace_id, exc_info=error)
    return _answer(problem, {})


def _problem(request: AnyRequest, status: int, code: str, *, title: str, detail: str) -> Problem:
    return Problem(f"urn:hansa:error:{code}", title, status, detail, request.scope["path"], code, trace_id(request), retryable=False)


def _answer(problem: Problem, headers: dict[str, Any]) -> Response[bytes]:
    return Response(msgspec.json.encode(problem), status_code=problem.status, media_type="application/problem+json", headers=headers)
