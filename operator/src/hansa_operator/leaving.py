"""What is done when an object is deleted: what was made of it outside goes first, then the finalizer.

The way out when that can't be had (a control plane that is gone for good): the annotation `hansa.dev/finalizer: release`.
"""

from hansa_operator.conditions import Verdict
from hansa_operator.credentials import Credentials
from hansa_operator.desk import Desk
from hansa_operator.judging import LOOK_SECONDS, RETRY_SECONDS
from hansa_operator.model import RELEASE, Found, Key
from hansa_operator.platform import Result
from hansa_operator.tenancy import Tenancy
from hansa_operator.writer import Writer


class Leaving:
    """See the module."""

    def __init__(self, desk: Desk, writer: Writer, tenancy: Tenancy, credentials: Credentials) -> None:
        self._platform = desk.platform
        self._index = desk.index
        self._events = desk.events
        self._writer = writer
        self._tenancy = tenancy
        self._credentials = credentials
        self.refused: set[Key] = set()
        """Objects that the control plane does not delete, perhaps because others still need them."""

    async def leave(self, found: Found) -> float | None:
        """Let an object go, or do what must be done before; the seconds after which to go on, None when it is gone."""
        self.refused.discard(found.key)
        if not found.held:
            return None
        if found.notes.get(RELEASE) == "release" or found.disabled:
            text = "let go on request: what the control plane has of it was left there"
            self._events.tell(found, "Warning", "Released", text)
            await self._writer.release(found)
            return None
        if found.key.kind == "Tenant":
            after = await self._leave_tenant(found)
        else:
            after = await self._leave_object(found)
        if after is None:
            await self._writer.release(found)
        return after

    async def _leave_object(self, found: Found) -> float | None:
        key = found.key
        holder = self._index.holder(key.namespace) if key.namespace else None
        tenant = str(found.status_value().get("tenant", "")) or (holder.key.name if holder is not None else "")
        if key.namespace and (not tenant or self._index.first(key) != key):
            return None  # never brought anywhere; or the name is another's by now
        result = await self._platform.delete(tenant, key.kind, key.name)
        if result.action == "failed":
            message = "; ".join(problem.text for problem in result.errors)
            if not await self._platform.owns(tenant, key.kind, key.name):
                self._events.tell(found, "Normal", "LeftToOwner", message)
                return None
            return await self._refused(found, message)
        if result.action == "absent" and result.note:
            self._events.tell(found, "Normal", "LeftInTenant", result.note)
        await self._credentials.drop(found, tenant)
        return None

    async def _leave_tenant(self, found: Found) -> float | None:
        name = found.key.name
        if self._tenancy.held(found):
            result = await self._close(found)
            if result.action == "failed":
                message = "; ".join(problem.text for problem in result.errors)
                if await self._platform.owns(name, "Tenant", name):
                    return await self._refused(found, message)
                self._events.tell(found, "Normal", "LeftToOwner", message)
            else:
                state = await self._platform.tenant(name)
                if state is not None and state.state == "deleting":
                    await self._writer.tell(found, Verdict("False", "Deleting", "the control plane removes what it has", progressing=True))
                    return LOOK_SECONDS
        await self._tenancy.withdraw(found, spaces=found.spec_value().get("deletionPolicy", "Retain") != "Retain")
        return None

    async def _close(self, found: Found) -> Result:
        """Have the control plane go the way of the Tenant's deletionPolicy."""
        name = found.key.name
        result = await self._platform.delete("", "Tenant", name)
        prevented = any(problem.code == "prevented" for problem in result.errors)
        if prevented and not found.spec_value().get("preventDeletion") and await self._platform.owns(name, "Tenant", name):
            # It was taken back when the object was on its way out already, and nothing of such a one is brought otherwise.
            brought = await self._platform.apply(found.manifest())
            return brought if brought.action == "failed" else await self._platform.delete("", "Tenant", name)
        return result

    async def _refused(self, found: Found, message: str) -> float:
        self.refused.add(found.key)
        await self._writer.tell(found, Verdict("False", "DeletionRefused", message, stalled=True))
        return RETRY_SECONDS
