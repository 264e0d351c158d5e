"""What the audit trail hears of requests: where they came from, who came in with a token, and which were refused."""

from typing import Any

import msgspec
from litestar.types import Scope

from hansa.api.envelope import REQUEST_ID
from hansa.api.services import AnyRequest, Services, services
from hansa.audit.model import Action, Actor, AuditEvent, Origin
from hansa.auth.model import CredentialRefused, Principal
from hansa.errors import Forbidden


def origin(request: AnyRequest) -> Origin:
    """Where a request came from."""
    client = request.scope["client"]
    return Origin(address=client[0] if client else "", request_id=request.scope["state"][REQUEST_ID])


async def entered(request: AnyRequest, caller: Principal) -> None:
    """Tell the audit trail of a person who came in with a token, once in a while."""
    event = caller.did(Action.LOGIN_DONE, f"Tenant/{caller.tenant}", after={"groups": caller.groups})
    await services(request).door.entered(caller.tenant_id, msgspec.structs.replace(event, origin=origin(request)))


async def told(error: Exception, scope: Scope) -> None:
    """Tell the audit trail of a request that was refused for who made it. Comes before the answer."""
    if scope["type"] != "http" or not isinstance(error, Forbidden | CredentialRefused):
        return
    request: AnyRequest = AnyRequest(scope)
    found: Services = request.app.state.services
    place, whence = f"{request.method} {scope['path']}", origin(request)
    if isinstance(error, CredentialRefused):
        actor = Actor(name=error.name, kind=error.name.partition(":")[0])
        event = AuditEvent(action=Action.LOGIN_REFUSED, actor=actor, target=place, origin=whence, reason=error.detail)
        await found.door.refused(error.tenant_id, event, kind="")
        return
    caller: Principal | None = scope["state"].get("principal")
    if caller is not None:
        wanted: dict[str, Any] | None = None
        if "hansa-tenant" in request.headers:
            wanted = {"tenant": request.headers["hansa-tenant"]}
        event = caller.did(Action.ACCESS_REFUSED, place, after=wanted, reason=error.detail)
        await found.door.refused(caller.tenant_id, msgspec.structs.replace(event, origin=whence), kind=request.route_handler.handler_name)
