"""Who may do what with a session, run or approval: judged by the namespace in which its session's agent stood when that was opened. Of what
somebody may not see is said what is said of a missing thing.

Those whose roles hold in the whole tenant pay nothing for it. Warning: a session whose namespace is not known, as of an earlier release, is
nobody else's.
"""

from typing import Literal
from uuid import UUID

from hansa.auth.model import Principal
from hansa.db.pool import Connection, Database
from hansa.errors import Forbidden, NotFound
from hansa.runs.admitting import store

What = Literal["session", "run", "approval"]


def missing(what: What, id: UUID) -> NotFound:
    """What is said of one that is not there."""
    return NotFound(f"there is no {what} {id}", hint="`hansa approvals` lists them." if what == "approval" else "")


def missing_agent(name: str) -> NotFound:
    """The same of an agent for which something was to be started."""
    return NotFound(f"there is no agent {name!r}", hint="`hansa get agents` lists them; `hansa apply -f` makes one.")


async def admit(database: Database, principal: Principal, permission: str, *, what: What, id: UUID) -> str | None:
    """The namespace of one, None where the caller may do it in the whole tenant and nobody has looked. A session never leaves its
    namespace: what is judged here holds later. Raises `NotFound`, or `Forbidden` when the caller may see it and no more."""
    if principal.reach(permission) is None:
        return None
    async with database.tenant(principal.tenant_id) as connection:
        return _judged(principal, permission, await store.namespace_of(connection, what, id), missing(what, id))


async def admit_agent(database: Database, principal: Principal, permission: str, name: str) -> None:
    """The same of an agent by its name, as it stands at this moment."""
    if principal.reach(permission) is not None:
        async with database.tenant(principal.tenant_id) as connection:
            await admit_agent_here(connection, principal, permission, name)


async def admit_agent_here(connection: Connection, principal: Principal, permission: str, name: str) -> None:
    """The same, in the caller's transaction."""
    if principal.reach(permission) is not None:
        _judged(principal, permission, await store.namespace_of_agent(connection, name), missing_agent(name))


def _judged(principal: Principal, permission: str, namespace: str | None, unseen: NotFound) -> str:
    if namespace is None or not (principal.may_in(permission, namespace) or principal.may_in("runs:read", namespace)):
        raise unseen
    if not principal.may_in(permission, namespace):
        roles = ", ".join(principal.described_roles)
        raise Forbidden(f"this needs the permission {permission} in the namespace {namespace!r}; your roles are {roles}")
    return namespace
