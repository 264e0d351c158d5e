"""/v1/sessions/{id}/export and /v1/sessions:import: a session as a file."""

from litestar import Response, get, post
from litestar.response import Stream

from hansa.api import answers, requests
from hansa.api.services import AnyRequest, services
from hansa.api.sessions import Session
from hansa.auth.model import Principal

ARCHIVE = "application/jsonl"


@get("/v1/sessions/{session_id:str}/export", opt={"permission": "runs:read", "answer": ARCHIVE})
async def export_session(request: AnyRequest, principal: Principal, session_id: str) -> Stream:
    """The session with its whole log, as JSON lines that seal each other; a last line of kind `end` says that nothing is missing."""
    session = requests.uuid(session_id, "session")
    headers = {"content-disposition": f'attachment; filename="session-{session}.jsonl"', "cache-control": "no-store"}
    return Stream(await services(request).archives.export(principal, session), media_type=ARCHIVE, headers=headers)


@post(
    "/v1/sessions:import",
    status_code=201,
    request_max_body_size=None,  # it has a bound of its own, and is read as a stream
    opt={"permission": "sessions:import", "body": ARCHIVE, "answer": Session},
)
async def import_session(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """A session as it was exported, under its own id. What is not right is refused with its line; runs that had not ended are canceled."""
    most = services(request).settings.server.import_bytes
    key = requests.key_text(request)
    route = f"{request.method} {request.scope['path']}"
    return answers.kept(await services(request).archives.take(principal, request.stream(), most=most, route=route, key=key))


HANDLERS = (export_session, import_session)
