"""Closing a tenant: archiving it, bringing it back, and asking for it to be deleted. What a deletion removes, and in which steps, is done
by workers (`hansa.runs.leaving`); from here on nobody gets in.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from hansa import ids
from hansa.audit.model import Action, AuditEvent
from hansa.audit.owing import decided
from hansa.auth import store as key_store
from hansa.auth.model import Principal
from hansa.db.joining import joining
from hansa.db.pool import Connection, Database, enter_each, enter_platform
from hansa.errors import Conflict, FieldError, Invalid, NotFound
from hansa.tenants import store
from hansa.tenants.mending import settled
from hansa.tenants.messaging import store as messaging_store
from hansa.tenants.messaging.service import Messaging
from hansa.tenants.service import DEFAULT_TENANT, Tenants, TenantView, missing, tenant_id

POLICIES = ("Retain", "Export", "Delete")


class Deletions:
    """What the platform's people do with whole tenants. `tell` says to every process that somebody is let in no more, or again."""

    def __init__(self, database: Database, tenants: Tenants, messaging: Messaging, *, tell: Callable[[], Awaitable[None]]) -> None:
        self._database = database
        self._messaging = messaging
        self._tenants = tenants
        self._tell = tell

    async def close(self, connection: Connection, principal: Principal, name: str, *, policy: str | None) -> AuditEvent | None:
        """Archive or begin to delete a tenant, as its `deletionPolicy` says, or `policy` instead of it, in the caller's transaction, whose
        connection is in that tenant, and joined. What is to be audited, there and where the caller is at home; None: it is so already.

        Raises `NotFound`, `Conflict`, `Invalid`. After the commit, `told` is to be called.
        """
        if policy not in (None, *POLICIES):
            raise invalid("policy", f"must be one of {', '.join(POLICIES)}, got {policy[:40]!r}")
        tenant = tenant_id(name)
        await enter_platform(connection, tenant)
        found = await store.lock_tenant(connection)
        if found is None:
            raise missing(name)
        self._database.expect(tenant, found["database"])
        if name in (DEFAULT_TENANT, principal.tenant):
            what = "the installation's own" if name == DEFAULT_TENANT else "the one that you act in"
            raise Conflict(f"the tenant {name!r} can't be deleted: it is {what}", hint="Suspend it, if nothing is to run in it.")
        if found["prevent_deletion"]:
            raise Conflict(f"the tenant {name!r} says that it is not to be deleted", hint="Set spec.preventDeletion to false and apply it.")
        chosen: str = policy or found["deletion_policy"]
        state = found["state"]
        if state == "deleting" or (state == "archived" and chosen == "Retain"):
            return None
        deletion = ids.new_id()
        async for _ in enter_each(connection, tenant):
            await store.suspend(connection, suspended=True)
            await messaging_store.block(connection, blocked=True)
            await store.set_state(connection, "archived" if chosen == "Retain" else "deleting")
        if chosen == "Retain":
            return principal.did(Action.TENANT_ARCHIVED, f"Tenant/{name}")
        # What can't be taken back is done where it is decided; in the tenant's own database once it is (`hansa.tenants.mending`).
        await enter_platform(connection, tenant)
        await key_store.revoke_all(connection)
        await store.insert_deletion(connection, deletion, tenant, name=name, policy=chosen, by=principal.name)
        told = {"deletion": str(deletion), "policy": chosen}
        return principal.did(Action.TENANT_DELETED, f"Tenant/{name}", after=told)

    @asynccontextmanager
    async def joined(self, name: str) -> AsyncIterator[Connection]:
        """What the platform keeps of the tenant, in a transaction that reaches its own database too."""
        async with self._database.here(tenant_id(name)) as connection, joining(self._database, connection, self._database) as joined:
            yield joined

    async def recorded(self, connection: Connection, event: AuditEvent, principal: Principal, name: str) -> None:
        """Audit it in the trail of the tenant itself, which may go with it, and in that of who did it."""
        for tenant in sorted((name, principal.tenant)):  # as everybody does who writes into several
            await decided(connection, tenant_id(tenant), event)

    async def restore(self, principal: Principal, name: str) -> TenantView:
        """Bring an archived tenant back, as its object says it is; its keys are good again."""
        async with self.joined(name) as connection:
            found = await store.lock_tenant(connection)
            if found is None:
                raise missing(name)
            self._database.expect(tenant_id(name), found["database"])
            if found["state"] == "deleting":
                raise Conflict(f"the tenant {name!r} is being deleted, and can't be brought back", hint="Import its export, if it has one.")
            if found["state"] == "archived":
                suspended = await store.is_suspended_by_object(connection)
                async for _ in enter_each(connection, tenant_id(name)):
                    await store.set_state(connection, "active")
                    await store.suspend(connection, suspended=suspended)
                    await messaging_store.block(connection, blocked=suspended)
                await self.recorded(connection, principal.did(Action.TENANT_RESTORED, f"Tenant/{name}"), principal, name)
        await self.told([name], principal)
        return await self._tenants.get(name)

    async def told(self, names: Sequence[str], principal: Principal) -> None:
        """Have every process know at once that tenants were closed, or are open again, and their own databases follow."""
        await self._tenants.forget()
        await self._tell()
        await self._messaging.changed(list(names))
        # Last, for it may take a while: everybody asks the platform's first.
        await settled(self._database, [*names, principal.tenant])

    async def page(self, *, before: UUID | None, limit: int) -> tuple[list[str], UUID | None]:
        """Deletions, newest first, as JSON texts, and where the next page begins."""
        rows = await store.page_deletions(self._database, before, limit + 1)
        return [row["body"] for row in rows[:limit]], rows[limit - 1]["id"] if len(rows) > limit else None

    async def get(self, deletion_id: UUID) -> str:
        """A deletion as JSON text."""
        return (await self._find(deletion_id)).body

    async def parts(self, deletion_id: UUID) -> tuple[str, UUID, int]:
        """The tenant whose export a deletion wrote, where it lies, and of how many parts it consists."""
        found = await self._find(deletion_id)
        if found.parts is None or found.export is None:
            raise NotFound(f"the deletion {deletion_id} has written no export", hint="It is there when `exported` is true.")
        return found.name, found.export, found.parts

    async def _find(self, deletion_id: UUID) -> store.KnownDeletion:
        found = await store.read_deletion(self._database, deletion_id)
        if found is None:
            raise NotFound(f"there is no deletion {deletion_id}")
        return found


def invalid(path: str, message: str) -> Invalid:
    """What is said of a part of a request."""
    return Invalid(f"{path}: {message}", errors=(FieldError(path, "range", message),))
