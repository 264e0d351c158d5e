"""What the audit trail says of objects that are applied together, each in the trail of its tenant."""

from typing import Any

import msgspec

from hansa.audit.model import Action, AuditEvent, Outcome
from hansa.auth.model import Principal
from hansa_crds import HansaObject, Tenant, kind_of


class Trail:
    """Collects while a request is carried out. What is as it was before is no change, and not audited."""

    def __init__(self, principal: Principal) -> None:
        self._principal = principal
        self._events: dict[str, list[AuditEvent]] = {}

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
        self._events.setdefault(tenant, []).append(event)
        # Also where the one who did it is at home: what is known of a tenant's making and changing outlives it there.
        if isinstance(found, Tenant) and tenant != self._principal.tenant:
            self._events.setdefault(self._principal.tenant, []).append(event)

    def refused(self, found: HansaObject, tenant: str, reason: str) -> None:
        """The caller may not apply such an object: told in its own trail, for another tenant's is none of its business."""
        event = self._principal.did(Action.ACCESS_REFUSED, _target(found), after={"tenant": tenant}, reason=reason)
        self._events.setdefault(self._principal.tenant, []).append(msgspec.structs.replace(event, outcome=Outcome.REFUSED))

    def of(self, tenant: str) -> list[AuditEvent]:
        """The events of a tenant's trail."""
        return self._events.get(tenant, [])

    def _acting(self, tenant: str) -> Principal:
        mine = self._principal
        return mine if tenant == mine.tenant else msgspec.structs.replace(mine, tenant=tenant, home=mine.home or mine.tenant)


def _target(found: HansaObject) -> str:
    return f"{kind_of(found).kind}/{found.metadata.name}"
