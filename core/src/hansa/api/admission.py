"""What every request to `/v1` must pass before its handler runs: a credential with the permission that the route names, and a
query of which each part is read by someone.
"""

from typing import Any

import msgspec

from hansa.api import refusals, requests
from hansa.api.services import AnyRequest, services
from hansa.auth.model import ROLES, Principal
from hansa.errors import Forbidden, HansaError, Invalid, Malformed, Unavailable

MAX_USER = 200


async def principal(request: AnyRequest) -> Principal:
    """The authenticated caller, who has the permission that the route names; asked for by every handler of `/v1`."""
    caller = await services(request).authenticator.authenticate(requests.header(request, b"authorization"))
    request.scope["state"]["principal"] = caller  # for those who tell of a refusal
    await services(request).rates.admit(caller)
    if caller.kind == "user":
        await refusals.entered(request, caller)
    opt = request.route_handler.opt
    needed = opt["permission"]
    everywhere = caller.may(needed)
    if not everywhere and not ("within" in opt and caller.reach(needed)):
        raise _missing(needed, caller)
    _check_address(request, opt)
    if "audit" in opt:
        caller = msgspec.structs.replace(caller, origin=refusals.origin(request))
    tenant = requests.header(request, b"hansa-tenant")
    if tenant not in (None, caller.tenant):
        if not everywhere:  # a namespace is one of its own tenant
            raise _missing(needed, caller)
        caller = await services(request).tenants.acting(caller, tenant)
    user = _end_user(request, caller)
    return caller if user is None else msgspec.structs.replace(caller, on_behalf_of=user)


async def still_admitted(request: AnyRequest, caller: Principal, namespace: str | None) -> bool:
    """Whether who was let in and reads on, as from a stream, would be let in now: its credential, its permission for what stands in the
    namespace, its tenant. While nobody can tell, because the database is away, it is."""
    try:
        now = await services(request).authenticator.authenticate(requests.header(request, b"authorization"))
        if caller.home:
            now = await services(request).tenants.acting(now, caller.tenant)
    except Unavailable:
        return True
    except HansaError:
        return False
    return now.tenant_id == caller.tenant_id and now.may_in(request.route_handler.opt["permission"], namespace)


def _end_user(request: AnyRequest, caller: Principal) -> str | None:
    """Whom the caller says it acts for. It is believed, so saying it needs a permission."""
    raw = requests.header(request, b"hansa-on-behalf-of")
    if raw is None:
        return None
    if not caller.may("users:act"):
        raise _missing("users:act", caller)
    try:
        user = raw.encode("latin-1").decode()
    except UnicodeDecodeError:
        user = ""
    if not 1 <= len(user) <= MAX_USER or not user.isprintable() or user != user.strip():
        raise Invalid(f"the header Hansa-On-Behalf-Of is not 1 to {MAX_USER} printable characters in UTF-8")
    return user


def _missing(needed: str, caller: Principal) -> Forbidden:
    having = ", ".join(role for role, permissions in ROLES.items() if needed in permissions)
    return Forbidden(
        f"this needs the permission {needed}; your roles are {', '.join(caller.described_roles) or 'none'}",
        hint=f"Roles that have it: {having}.",
    )


def _check_address(request: AnyRequest, opt: dict[str, Any]) -> None:
    """Refuse a query that nobody reads or that says one thing twice, and a character that no name has."""
    if "\x00" in request.scope["path"]:
        raise Malformed("the address holds a NUL character (%00)")
    if not request.scope["query_string"]:
        return
    known = requests.parameters(opt)
    given = sorted(request.query_params.multi_items())
    seen = set[str]()
    for name, _ in given:
        if name not in known:
            raise Invalid(f"unknown query parameter {name[:80]!r}; known here: {', '.join(known) or 'none'}")
        if name in seen:
            raise Invalid(f"the query parameter {name!r} is given more than once")
        seen.add(name)
    if any("\x00" in value for _, value in given):
        raise Malformed("the address holds a NUL character (%00)")
