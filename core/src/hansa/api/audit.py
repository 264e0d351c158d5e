"""/v1/audit-events: who changed what, all of it as a file, and whether it is as it was written."""

from datetime import datetime
from typing import Any

import msgspec
from litestar import Response, get
from litestar.response import Stream

from hansa.api import answers, requests
from hansa.api.services import AnyRequest, services
from hansa.audit.model import ACTIONS, Outcome
from hansa.audit.verdict import Verdict
from hansa.auth.model import Principal
from hansa.errors import Invalid

LINES = "application/jsonl"
TIMES = {"since": datetime, "until": datetime}


class Who(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who did it. `tenant`: the one the credential belongs to, when it acted in another; `on_behalf_of`: whom it acted for."""

    name: str
    kind: str = ""
    tenant: str = ""
    roles: tuple[str, ...] = ()
    on_behalf_of: str = ""


class Whence(msgspec.Struct, frozen=True, omit_defaults=True):
    """From where: the address of the other end, and the id of the request (`X-Request-Id`)."""

    address: str = ""
    request_id: str = ""


class AuditedEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event of the audit trail. `seq` counts from 1 without a gap; `hash` is that of the event and of all before it."""

    seq: int
    at: str
    hash: str
    action: str
    actor: Who
    target: str
    outcome: str
    origin: Whence
    before: Any = None
    after: Any = None
    reason: str = ""


@get(
    "/v1/audit-events",
    opt={
        "permission": "audit:read",
        "answer": list[AuditedEvent],
        "query": {"action": str, "actor": str, "target": str, "outcome": str, **TIMES},
    },
)
async def list_audit_events(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Events of the audit trail, newest first. `actor` is a name as events have it, `target` is like `Agent/greeter`."""
    asked = requests.query(request)
    filters: dict[str, Any] = {name: asked.get(name) for name in ("action", "actor", "target", "outcome")}
    for name, known in (("action", ACTIONS), ("outcome", Outcome)):
        if filters[name] not in (None, *known):
            raise Invalid(f"{name} {filters[name][:80]!r} is not one of {', '.join(known)}")
    filters |= {name: requests.moment(request, name) for name in TIMES}
    before = requests.cursor(request, principal)
    data, last = await services(request).trails.page(principal.tenant_id, filters, before=before, limit=requests.limit(request))
    return answers.page(request, principal, data, last)


@get("/v1/audit-events:export", opt={"permission": "audit:read", "answer": LINES, "query": TIMES})
async def export_audit_events(request: AnyRequest, principal: Principal) -> Stream:
    """The trail, or a piece of it, as JSON lines that can be verified anywhere; a last line says that nothing is missing."""
    since, until = (requests.moment(request, name) for name in TIMES)
    lines = services(request).trails.export(principal.tenant_id, since=since, until=until)
    headers = {"content-disposition": f'attachment; filename="audit-{principal.tenant}.jsonl"', "cache-control": "no-store"}
    return Stream(lines, media_type=LINES, headers=headers)


@get("/v1/audit-events:verify", opt={"permission": "audit:read", "answer": Verdict})
async def verify_audit_events(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Whether the trail is as it was written, or else the first row that is not; 200 either way, `ok` says which."""
    return answers.value(await services(request).trails.verify(principal.tenant_id))


HANDLERS = (list_audit_events, export_audit_events, verify_audit_events)
