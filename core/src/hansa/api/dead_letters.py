"""/v1/dead-letters: messages that could not be received, to be looked at and sent again."""

from typing import Any
from uuid import UUID

import msgspec
from litestar import Response, get, post

from hansa.api import answers, requests
from hansa.api.services import AnyRequest, services
from hansa.audit.model import Action
from hansa.audit.service import record
from hansa.auth.idempotency import once
from hansa.auth.model import Principal
from hansa.db.pool import Connection


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that was given up after `attempts` failures; `reason` is what the last one said."""

    id: UUID
    kind: str
    key: str | None
    attempts: int
    reason: str
    payload: Any
    created_at: str
    buried_at: str


@get("/v1/dead-letters", opt={"permission": "messages:read", "answer": list[DeadLetter]})
async def list_dead_letters(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Messages that could not be received, newest first."""
    before = requests.cursor(request, principal)
    page = await services(request).dead_letters.page(principal.tenant_id, before=before, limit=requests.limit(request))
    return answers.page(request, principal, page.data, page.last)


@get("/v1/dead-letters/{message_id:str}", opt={"permission": "messages:read", "answer": DeadLetter})
async def get_dead_letter(request: AnyRequest, principal: Principal, message_id: str) -> Response[bytes]:
    """One message that could not be received."""
    return answers.text(await services(request).dead_letters.get(principal.tenant_id, requests.uuid(message_id, "message")))


@post(
    "/v1/dead-letters/{message_id:str}/retry",
    status_code=202,
    opt={"audit": Action.MESSAGE_RETRIED, "permission": "messages:retry", "answer": DeadLetter},
)
async def retry_dead_letter(request: AnyRequest, principal: Principal, message_id: str) -> Response[bytes]:
    """Send a message again under its old id; it is no dead letter any more, unless it fails again."""
    letters, found = services(request).dead_letters, requests.uuid(message_id, "message")

    async def operation(connection: Connection) -> tuple[int, str]:
        body = await letters.retry(connection, principal.tenant_id, found)
        await record(connection, principal.did(Action.MESSAGE_RETRIED, f"Message/{found}"))
        return 202, body

    answer = await once(services(request).equipment.database, principal, await requests.idempotency_key(request), operation)
    await letters.ring(principal.tenant_id)
    return answers.kept(answer)


HANDLERS = (list_dead_letters, get_dead_letter, retry_dead_letter)
