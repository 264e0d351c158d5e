"""Service accounts: programs that act in a tenant under a name of their own, whatever key they use today. Their roles never exceed
those of whoever made them; a Tenant's role bindings may give them more.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from hansa.audit.model import Action
from hansa.audit.service import record
from hansa.auth import store
from hansa.auth.api_keys import check_names, check_platform, check_within
from hansa.auth.bindings import bound_to
from hansa.auth.model import Bound, Principal
from hansa.db.pool import Connection, Database
from hansa.errors import Conflict, NotFound
from hansa_crds import RoleBinding


class ServiceAccounts:
    """The service accounts of tenants. `changed` tells every process that keys have changed."""

    def __init__(self, database: Database, *, changed: Callable[[], Awaitable[None]]) -> None:
        self._database = database
        self._changed = changed

    async def make(self, connection: Connection, principal: Principal, *, name: str, description: str, roles: Sequence[str]) -> str:
        """Make one in the caller's transaction; as JSON text. Raises `Invalid`, `Forbidden`, `Conflict`."""
        if roles:  # without any, the tenant binds some to it
            check_names(Bound(tuple(roles)), None)
        check_within(principal, Bound(tuple(roles)), None)
        body = await store.insert_account(connection, principal, name=name, description=description, roles=roles)
        if body is None:
            raise Conflict(f"there is a service account {name!r} already", hint="Delete it first, or choose another name.")
        change = {"description": description, "roles": list(roles)}
        await record(connection, principal.did(Action.ACCOUNT_MADE, f"ServiceAccount/{name}", after=change))
        return _shown(body, name, await store.role_bindings(connection))

    async def delete(self, principal: Principal, name: str) -> None:
        """Delete one with all its keys: no request that comes later is let in with any of them. Raises `NotFound`, and `Forbidden` for one
        with roles of the platform."""
        async with self._database.tenant(principal.tenant_id) as connection:
            found = await store.find_account(connection, name)
            if found is None:
                raise _missing(name)
            check_platform(principal, found.roles)
            await store.delete_account(connection, name)
            await record(connection, principal.did(Action.ACCOUNT_DELETED, f"ServiceAccount/{name}"))
        await self._changed()

    async def get(self, principal: Principal, name: str) -> str:
        """One as JSON text."""
        async with self._database.tenant(principal.tenant_id) as connection:
            found = await store.find_account(connection, name)
        if found is None:
            raise _missing(name)
        return _shown(found.body, name, found.bindings)

    async def page(self, principal: Principal, *, after: str, limit: int) -> tuple[list[str], str | None]:
        """Those of the tenant by name, and where the next page begins."""
        async with self._database.tenant(principal.tenant_id) as connection:
            rows, bindings = await store.page_accounts(connection, after, limit + 1), await store.role_bindings(connection)
        return [_shown(row["body"], row["name"], bindings) for row in rows[:limit]], rows[limit - 1]["name"] if len(rows) > limit else None


def _shown(body: str, name: str, bindings: Iterable[RoleBinding]) -> str:
    """An account as people see it, with what its tenant binds to it."""
    bound = bound_to(bindings, service_account=name).described
    return f'{body[:-1]}, "bound" : {msgspec.json.encode(bound).decode()}}}'


def _missing(name: str) -> NotFound:
    return NotFound(f"there is no service account {name[:80]!r}")
