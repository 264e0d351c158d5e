"""Principals and permissions.

A role is a set of permissions; a route names the one it needs.
"""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import msgspec

PERMISSIONS: Mapping[str, str] = {
    "agents:read": "list and read agents and their revisions",
    "objects:read": "list and read objects",
    "objects:write": "apply and delete objects of the tenant",
    "platform:write": "apply Tenant and Region objects",
    "plugins:read": "list plugins, tools and models",
    "runs:read": "read runs, sessions and their events",
    "runs:start": "start runs and post to sessions",
    "runs:cancel": "cancel, suspend and resume runs",
    "approvals:read": "read what runs ask people",
    "approvals:decide": "approve or deny calls, answer questions",
    "messages:read": "list and read messages that could not be received",
    "messages:retry": "send such messages again",
    "sessions:import": "import sessions, that is: write a past",
}

READING = frozenset({"agents:read", "objects:read", "plugins:read", "runs:read", "approvals:read", "messages:read"})
ROLES: Mapping[str, frozenset[str]] = {
    "viewer": READING,
    "operator": READING | {"runs:start", "runs:cancel", "approvals:decide", "messages:retry"},
    "developer": frozenset(PERMISSIONS) - {"platform:write", "sessions:import"},
    "platform-admin": frozenset(PERMISSIONS),
}


class Principal(msgspec.Struct, frozen=True):
    """An authenticated caller. `name` is stable and unique in the tenant: the scope of idempotency keys."""

    tenant_id: UUID
    tenant: str
    name: str
    roles: tuple[str, ...]

    def may(self, permission: str) -> bool:
        return any(permission in ROLES.get(role, ()) for role in self.roles)


class StoredKey(msgspec.Struct, frozen=True):
    """A key as the database has it."""

    tenant_id: UUID
    tenant: str
    id: str
    digest: bytes
    roles: tuple[str, ...]
    expires_at: datetime | None
    revoked_at: datetime | None
