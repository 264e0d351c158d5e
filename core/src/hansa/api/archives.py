"""/v1/sessions/{id}/export and /v1/sessions:import, a session as a file; /v1/values, what its log refers to."""

import re
from typing import Any

from litestar import Response, get, post
from litestar.response import Stream

from hansa.api import answers, requests
from hansa.api.services import STANDING, AnyRequest, services
from hansa.api.sessions import Session
from hansa.audit.model import Action
from hansa.auth.model import Principal
from hansa.errors import Invalid

ARCHIVE = "application/jsonl"


@get("/v1/sessions/{session_id:str}/export", opt={"permission": "runs:read", "within": STANDING, "answer": ARCHIVE})
async def export_session(request: AnyRequest, principal: Principal, session_id: str) -> Stream:
    """The session with its whole log, as JSON lines that seal each other; a last line of kind `end` says that nothing is missing."""
    session = requests.uuid(session_id, "session")
    headers = {"content-disposition": f'attachment; filename="session-{session}.jsonl"', "cache-control": "no-store"}
    return Stream(await services(request).archives.export(principal, session), media_type=ARCHIVE, headers=headers)


@post(
    "/v1/sessions:import",
    status_code=201,
    request_max_body_size=None,  # it has a bound of its own, and is read as a stream
    opt={"audit": Action.SESSION_IMPORTED, "permission": "sessions:import", "body": ARCHIVE, "answer": Session},
)
async def import_session(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """A session as it was exported, under its own id. What is not right is refused with its line; runs that had not ended are canceled."""
    most = services(request).settings.server.import_bytes
    key = requests.key_text(request)
    route = f"{request.method} {request.scope['path']}"
    return answers.kept(await services(request).archives.take(principal, request.stream(), most=most, route=route, key=key))


@get("/v1/values/{digest:str}", opt={"permission": "runs:read", "answer": Any})
async def get_value(request: AnyRequest, principal: Principal, digest: str) -> Response[bytes]:
    """A value that runs and events refer to, by its digest `sha256:...`: canonical JSON, whose SHA-256 that is."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise Invalid(f"value {digest[:80]!r} is not a digest (sha256: and 64 hex digits)")
    body = await services(request).runs.value(principal, bytes.fromhex(digest.removeprefix("sha256:")))
    return Response(body, media_type=answers.JSON, headers={"etag": f'"{digest}"'})


HANDLERS = (export_session, import_session, get_value)
