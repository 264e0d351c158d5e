"""Every error as RFC 9457 problem+json, whatever raised it. No handler builds an error answer of its own."""

from typing import Any

import msgspec
import structlog
from litestar import Response
from litestar.exceptions import HTTPException

from hansa.api.envelope import REQUEST_ID
from hansa.api.services import AnyRequest, services
from hansa.errors import HansaError, Unauthenticated
from hansa.server.problem import CODES, PROBLEM, Problem, trace_id

log = structlog.stdlib.get_logger("hansa.api")


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
    scope = request.scope
    return Problem(
        type=f"urn:hansa:error:{code}",
        title=title,
        status=status,
        detail=detail,
        instance=scope["path"],
        code=code,
        trace_id=trace_id(scope["headers"]),
        request_id=scope["state"][REQUEST_ID],
        retryable=False,
    )


def _answer(problem: Problem, headers: dict[str, Any]) -> Response[bytes]:
    return Response(msgspec.json.encode(problem), status_code=problem.status, media_type=PROBLEM, headers=headers)
