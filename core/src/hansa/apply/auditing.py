"""What the audit trail says of objects that are applied together, each in the trail of its tenant."""

from typing import Any

import msgspec

from hansa.apply.model import Kept, Owner
from hansa.audit.model import Action, AuditEvent, Outcome
from hansa.audit.owing import decided
from hansa.audit.service import record
from hansa.auth.model import Principal
from hansa.db.pool import Connection, enter_tenant, has_own
from hansa.tenants import store as tenant_store
from hansa.tenants.service import tenant_id
from hansa_crds import HansaObject, Tenant, kind_of


class Trail:
    """Collects while a request is carried out. What is as it was before is no change, and not audited."""

    def __init__(self, principal: Principal) -> None:
        self._principal = principal
        self._events: dict[str, list[tuple[AuditEvent, bool]]] = {}

    def applied(self, found: HansaObject, tenant: str, before: str | None, *, action: str) -> None:
        """An object was written, or was there already; `before` is what it was, as JSON text."""
        if action not in ("created", "configured"):
            return
        was: Any = None if before is None else msgspec.json.decode(before)
        if isinstance(found, Tenant):
            verb = Action.TENANT_CREATED if was is None else Action.TENANT_CHANGED
        else:
            verb = Action.OBJECT_CREATED if was is None else Action.OBJECT_CHANGED
        event = self._acting(tenant).did(verb, _target(found), before=was, after=msgspec.to_builtins(found))
        self.add(tenant, event, decided=isinstance(found, Tenant))
        # Also where the one who did it is at home: what is known of a tenant's making and changing outlives it there.
        if isinstance(found, Tenant) and tenant != self._principal.tenant:
            self.add(self._principal.tenant, event, decided=True)

    def deleted(self, kind: str, tenant: str, known: Kept, *, commit: str = "") -> None:
        """An object was deleted; `commit`: the one that has it no more."""
        reason = f"commit {commit} has it no more" if commit else ""
        was = msgspec.json.decode(known.manifest)
        event = self._acting(tenant).did(Action.OBJECT_DELETED, f"{kind}/{known.name}", before=was, reason=reason)
        self.add(tenant, event)

    def taken(self, kind: str, tenant: str, known: Kept, owner: Owner) -> None:
        """An object was given another owner."""
        was = {"manager": known.manager, "origin": known.origin, "commit": known.commit}
        event = self._acting(tenant).did(Action.OBJECT_TAKEN, f"{kind}/{known.name}", before=was, after=msgspec.to_builtins(owner))
        self.add(tenant, event, decided=kind == "Tenant")

    def add(self, tenant: str, event: AuditEvent, *, decided: bool = False) -> None:
        """Any other event of a tenant's trail. `decided`: of what the platform's database decides, wherever the trail is."""
        self._events.setdefault(tenant, []).append((event, decided))

    async def record(self, connection: Connection, changed: set[str]) -> None:
        """Write it all, and count the change of the tenants whose objects are others now; the connection is in the caller's tenant then.

        Last in a transaction: the end of a tenant's audit trail is held until the commit. All take them in one order.
        """
        for tenant in sorted(changed | self._events.keys()):
            identity, events = tenant_id(tenant), self._events.get(tenant, ())
            await enter_tenant(connection, identity)
            if tenant in changed:
                await tenant_store.objects_changed(connection)
            own = has_own(connection, identity)
            await record(connection, *(event for event, is_decided in events if not (own and is_decided)))
            if own:
                await decided(connection, identity, *(event for event, is_decided in events if is_decided))
        await enter_tenant(connection, self._principal.tenant_id)

    def refused(self, found: HansaObject, tenant: str, reason: str) -> None:
        """The caller may not apply such an object: told in its own trail, for another tenant's is none of its business."""
        event = self._principal.did(Action.ACCESS_REFUSED, _target(found), after={"tenant": tenant}, reason=reason)
        self.add(self._principal.tenant, msgspec.structs.replace(event, outcome=Outcome.REFUSED))

    def _acting(self, tenant: str) -> Principal:
        mine = self._principal
        return mine if tenant == mine.tenant else msgspec.structs.replace(mine, tenant=tenant, home=mine.home or mine.tenant)


def _target(found: HansaObject) -> str:
    return f"{kind_of(found).kind}/{found.metadata.name}"
