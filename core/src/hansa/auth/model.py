"""Principals and permissions.

A role is a set of permissions; a route names the one it needs.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

import msgspec

PERMISSIONS: Mapping[str, str] = {
    "self:read": "see who one is and what one may do",
    "agents:read": "list and read agents and their revisions",
    "objects:read": "list and read objects",
    "objects:write": "apply and delete objects of the tenant",
    "platform:write": "apply Tenant and Region objects",
    "tenants:read": "list and read all tenants",
    "tenants:act": "act in any tenant, named by the header Hansa-Tenant or an object's namespace",
    "plugins:read": "list plugins, tools and models",
    "runs:read": "read runs, sessions and their events",
    "runs:start": "start runs and post to sessions",
    "runs:cancel": "cancel, suspend and resume runs",
    "approvals:read": "read what runs ask people",
    "approvals:decide": "approve or deny calls, answer questions",
    "messages:read": "list and read messages that could not be received",
    "messages:retry": "send such messages again",
    "messages:join": "get credentials for one's own programs on NATS, and revoke all of the tenant",
    "sessions:import": "import sessions, that is: write a past",
    "keys:read": "list and read API keys, without their secrets",
    "keys:write": "make, rotate and revoke API keys that may do no more than their maker",
}

READING = frozenset({"self:read", "agents:read", "objects:read", "plugins:read", "runs:read", "approvals:read", "messages:read"})
PLATFORM = frozenset({"platform:write", "tenants:read", "tenants:act"})
TENANT = frozenset(PERMISSIONS) - PLATFORM
ROLES: Mapping[str, frozenset[str]] = {
    "viewer": READING,
    "approver": READING | {"approvals:decide"},
    "operator": READING | {"runs:start", "runs:cancel", "approvals:decide", "messages:retry", "messages:join"},
    "developer": TENANT - {"sessions:import", "keys:read", "keys:write"},
    "tenant-admin": TENANT,
    "platform-admin": frozenset(PERMISSIONS),
}


def permissions_of(roles: Iterable[str], scopes: Iterable[str] | None) -> frozenset[str]:
    """What someone with these roles may, of which `scopes`, if there are any, leave no more than they name."""
    found = frozenset[str]().union(*(ROLES.get(role, frozenset()) for role in roles))
    return found if scopes is None else found & frozenset(scopes)


class Principal(msgspec.Struct, frozen=True):
    """An authenticated caller. `name` is stable and unique in the tenant: the scope of idempotency keys.

    `scopes`: the only permissions of its roles that it has; None: it has them all. `rated`: its tenant's requests are counted.
    """

    tenant_id: UUID
    tenant: str
    name: str
    roles: tuple[str, ...]
    scopes: tuple[str, ...] | None = None
    rated: bool = False

    def may(self, permission: str) -> bool:
        if self.scopes is not None and permission not in self.scopes:
            return False
        return any(permission in ROLES.get(role, ()) for role in self.roles)

    @property
    def permissions(self) -> frozenset[str]:
        """All that it may."""
        return permissions_of(self.roles, self.scopes)


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a key is made with: a name for people, who made it, what it may and until when."""

    name: str
    roles: tuple[str, ...]
    scopes: tuple[str, ...] | None = None
    made_by: str = ""
    expires_at: datetime | None = None


class StoredKey(msgspec.Struct, frozen=True):
    """A key as the database has it. `unused`: its last use is not known, or was more than a minute ago; `rated`: see `Principal`."""

    tenant_id: UUID
    tenant: str
    id: str
    digest: bytes
    roles: tuple[str, ...]
    scopes: tuple[str, ...] | None
    expires_at: datetime | None
    revoked_at: datetime | None
    unused: bool
    rated: bool
