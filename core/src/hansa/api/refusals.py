"""What the audit trail hears of requests: where they came from, and which were refused."""

from typing import Any

import msgspec
from litestar.types import Scope

from hansa.api.envelope import REQUEST_ID
from hansa.api.services import AnyRequest, Services
from hansa.audit.model import Action, Actor, AuditEvent, Origin
from hansa.auth.model import Principal
from hansa.auth.service import KnownKeyRefused
from hansa.errors import Forbidden


def origin(request: AnyRequest) -> Origin:
    """Where a request came from."""
    client = request.scope["client"]
    return Origin(address=client[0] if client else "", request_id=request.scope["state"][REQUEST_ID])


async def told(error: Exception, scope: Scope) -> None:
    """Tell the audit trail of a request that was refused for who made it. Comes before the answer."""
    if scope["type"] != "http" or not isinstance(error, Forbidden | KnownKeyRefused):
        return
    request: AnyRequest = AnyRequest(scope)
    services: Services = request.app.state.services
    place, whence = f"{request.method} {scope['path']}", origin(request)
    if isinstance(error, KnownKeyRefused):
        actor = Actor(name=error.name, kind="key")
        event = AuditEvent(action=Action.LOGIN_REFUSED, actor=actor, target=place, origin=whence, reason=error.detail)
        await services.refusals.tell(error.tenant_id, event)
        return
    caller: Principal | None = scope["state"].get("principal")
    if caller is not None:
        wanted: dict[str, Any] | None = None
        if "hansa-tenant" in request.headers:
            wanted = {"tenant": request.headers["hansa-tenant"]}
        event = caller.did(Action.ACCESS_REFUSED, place, after=wanted, reason=error.detail)
        await services.refusals.tell(caller.tenant_id, msgspec.structs.replace(event, origin=whence))
