"""Principals and permissions.

A role is a set of permissions; a route names the one it needs.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from hansa.audit.model import Action, Actor, AuditEvent, Origin
from hansa.audit.redaction import difference
from hansa.errors import Unauthenticated
from hansa_crds import Issuer, RoleBinding

PERMISSIONS: Mapping[str, str] = {
    "self:read": "see who one is and what one may do",
    "agents:read": "list and read agents and their revisions",
    "objects:read": "list and read objects",
    "objects:write": "apply and delete objects of the tenant",
    "objects:takeover": "give objects another owner",
    "platform:write": "apply Tenant and Region objects; delete, restore, export and import tenants",
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
    "users:act": "name the end user on whose behalf one acts (header Hansa-On-Behalf-Of)",
    "usage:read": "see what the tenant has used, and what it may",
    "messages:join": "get credentials for one's own programs on NATS, and revoke all of the tenant",
    "sessions:import": "import sessions, that is: write a past",
    "secrets:read": "list secrets, never what they hold",
    "secrets:write": "set, delete and rotate secrets",
    "keys:read": "list and read API keys, without their secrets, and service accounts",
    "keys:write": "make, rotate and revoke API keys and service accounts that may do no more than their maker",
    "access:read": "see what somebody else in the tenant may",
    "audit:read": "read, verify and export the audit trail",
}

READING = frozenset(
    {"self:read", "agents:read", "objects:read", "plugins:read", "runs:read", "approvals:read", "messages:read", "usage:read"}
)
PLATFORM = frozenset({"platform:write", "tenants:read", "tenants:act"})
TENANT = frozenset(PERMISSIONS) - PLATFORM
ROLES: Mapping[str, frozenset[str]] = {
    "viewer": READING,
    "auditor": READING | {"audit:read", "keys:read", "access:read"},
    "approver": READING | {"approvals:decide"},
    "operator": READING | {"runs:start", "runs:cancel", "approvals:decide", "messages:retry", "messages:join", "secrets:read"},
    "developer": TENANT - {"objects:takeover", "sessions:import", "keys:read", "keys:write", "audit:read", "users:act", "access:read"},
    "delegate": frozenset({"self:read", "users:act"}),
    "tenant-admin": TENANT,
    "reconciler": PLATFORM | {"self:read", "agents:read", "objects:read", "objects:write", "runs:start", "secrets:read", "secrets:write"},
    "platform-admin": frozenset(PERMISSIONS),
}


IN_NAMESPACES = frozenset(
    {
        "self:read",
        "agents:read",
        "objects:read",
        "objects:write",
        "objects:takeover",
        "plugins:read",
        "runs:read",
        "runs:start",
        "runs:cancel",
        "approvals:read",
        "approvals:decide",
    }
)
"""Permissions that a role also gives where it is bound in namespaces only: what is about an object that stands in one, and what comes of
it. All others hold in a whole tenant, or not at all."""


def permissions_of(roles: Iterable[str], scopes: Iterable[str] | None) -> frozenset[str]:
    """What someone with these roles may, of which `scopes`, if there are any, leave no more than they name."""
    found = frozenset[str]().union(*(ROLES.get(role, frozenset()) for role in roles))
    return found if scopes is None else found & frozenset(scopes)


def permissions_within(roles: Iterable[str], scopes: Iterable[str] | None) -> frozenset[str]:
    """The same of roles that are bound in namespaces: what they give there."""
    return permissions_of(roles, scopes) & IN_NAMESPACES


def within_tenant(roles: Iterable[str]) -> tuple[str, ...]:
    """Those of the roles that mean nothing beyond a tenant."""
    return tuple(role for role in roles if not ROLES.get(role, PLATFORM) & PLATFORM)


Kind = Literal["key", "service", "user", "agent", "rollout"]
"""What a principal is: an API key by itself, a service account, a person whom an issuer has named, an agent's run, the check of an
agent's revision."""
IN_RUNS = frozenset({"runs:start"})
"""Permissions that mean something within a run: they bound the agents that it calls and the events that it publishes."""


def limited(permission: str, namespace: str) -> str:
    """How a permission, or a role, is written that holds in one namespace only."""
    return f"{permission}@{namespace}"


class RolesIn(msgspec.Struct, frozen=True):
    """Roles that somebody has in one namespace."""

    namespace: str
    roles: tuple[str, ...]


class Bound(msgspec.Struct, frozen=True):
    """What somebody has: `roles` in the whole tenant, and `within` those in single namespaces, each once, by name."""

    roles: tuple[str, ...] = ()
    within: tuple[RolesIn, ...] = ()

    @property
    def described(self) -> tuple[str, ...]:
        """All of it, what is in one namespace as `viewer@team-a`."""
        return (*self.roles, *(limited(role, each.namespace) for each in self.within for role in each.roles)) if self.within else self.roles


class Starter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who started a run, as the run keeps it. `may`: its permissions of `IN_RUNS`, each everywhere (`runs:start`) or in one namespace
    (`runs:start@team-a`); None: not known."""

    name: str
    kind: Kind
    on_behalf_of: str | None = None
    may: tuple[str, ...] | None = None


class Principal(msgspec.Struct, frozen=True):
    """An authenticated caller. `name` is stable and unique in the tenant: the scope of idempotency keys.

    `scopes`: the only permissions of its roles that it has; None: it has them all. `rated`: its tenant's requests are counted.
    `home`: the tenant that its credential belongs to, when it acts in another. `origin`: where its request came from; known where
    something is changed.
    `groups`: those that its issuer names. `on_behalf_of`: the end user that it says it acts for. `within`: roles that it has in single
    namespaces of its tenant only.
    """

    tenant_id: UUID
    tenant: str
    name: str
    roles: tuple[str, ...]
    scopes: tuple[str, ...] | None = None
    rated: bool = False
    home: str = ""
    origin: Origin = Origin()
    kind: Kind = "key"
    groups: tuple[str, ...] = ()
    on_behalf_of: str | None = None
    within: tuple[RolesIn, ...] = ()

    def may(self, permission: str) -> bool:
        """Whether it has a permission in the whole tenant."""
        if self.scopes is not None and permission not in self.scopes:
            return False
        return any(permission in ROLES.get(role, ()) for role in self.roles)

    def reach(self, permission: str) -> frozenset[str] | None:
        """The namespaces in which it has a permission; None: in all, those of the tenant as a whole."""
        if self.may(permission):
            return None
        if permission not in IN_NAMESPACES or (self.scopes is not None and permission not in self.scopes):
            return frozenset()
        return frozenset(each.namespace for each in self.within if any(permission in ROLES.get(role, ()) for role in each.roles))

    def may_in(self, permission: str, namespace: str | None) -> bool:
        """Whether it has a permission for what stands in a namespace of its tenant; None: that is not known."""
        reach = self.reach(permission)
        return reach is None or namespace in reach

    @property
    def permissions(self) -> frozenset[str]:
        """All that it may in the whole tenant."""
        return permissions_of(self.roles, self.scopes)

    @property
    def described_roles(self) -> tuple[str, ...]:
        """All its roles, those in one namespace as `viewer@team-a`."""
        return Bound(self.roles, self.within).described

    def did(self, action: Action, target: str, *, before: Any = None, after: Any = None, reason: str = "") -> AuditEvent:
        """What the audit trail says of what this caller did. Of `before` and `after`, if both are objects, it says what differs."""
        was, now = difference(before, after)
        actor = Actor(name=self.name, kind=self.kind, tenant=self.home, roles=self.described_roles, on_behalf_of=self.on_behalf_of or "")
        return AuditEvent(action=action, actor=actor, target=target, origin=self.origin, before=was, after=now, reason=reason)

    @property
    def starter(self) -> Starter:
        """What a run that it starts keeps of it."""
        return Starter(self.name, self.kind, self.on_behalf_of, tuple(sorted(self._in_runs())))

    def _in_runs(self) -> Iterator[str]:
        for each in IN_RUNS:
            reach = self.reach(each)
            if reach is None:
                yield each
            else:
                yield from (limited(each, namespace) for namespace in reach)


class StoredAccount(msgspec.Struct, frozen=True):
    """A service account: its own roles, those that its tenant binds, and how people see it, as JSON text."""

    name: str
    roles: tuple[str, ...]
    bindings: tuple[RoleBinding, ...]
    body: str


class StoredIssuer(msgspec.Struct, frozen=True):
    """An issuer as a Tenant names it, and the roles that the tenant binds; `rated`: see `Principal`; `database`: where the tenant is."""

    tenant_id: UUID
    tenant: str
    rated: bool
    entry: Issuer
    bindings: tuple[RoleBinding, ...]
    database: str = "Shared"


class CredentialRefused(Unauthenticated):
    """A credential of a tenant that is known, and is not let in: its key, or an issuer's token. The tenant is told in its audit trail."""

    def __init__(self, detail: str, tenant_id: UUID, name: str, *, hint: str) -> None:
        super().__init__(detail, hint=hint)
        self.tenant_id = tenant_id
        self.name = name


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a key is made with: a name for people, who made it, what it may and until when. A service account's key has its roles.
    `predecessor`: the key that is rotated into it."""

    name: str
    roles: tuple[str, ...]
    scopes: tuple[str, ...] | None = None
    made_by: str = ""
    expires_at: datetime | None = None
    service_account: str | None = None
    predecessor: str | None = None


class StoredKey(msgspec.Struct, frozen=True):
    """A key as the database has it. `unused`: its last use is not known, or was more than a minute ago; `rated`: see `Principal`;
    `state`: that of the tenant, which lets people in while it is active.

    `account_roles`, `bindings`: of its service account, if it is one's, and of the tenant. `database`: where it is kept.
    """

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
    service_account: str | None = None
    account_roles: tuple[str, ...] | None = None
    bindings: tuple[RoleBinding, ...] = ()
    state: str = "active"
    database: str = "Shared"
