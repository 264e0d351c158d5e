"""What is audited, and the form of it. Configuration, access, decisions and the control of runs are; what runs do is in their logs.

An event says who, what, from where, on behalf of whom, what was before and after, and how it ended. No secrets: `redaction` sees to that.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec


class Action(StrEnum):
    """All that is audited: subject, full stop, verb. Each is described in `ACTIONS`."""

    OBJECT_CREATED = "object.created"
    OBJECT_CHANGED = "object.changed"
    OBJECT_DELETED = "object.deleted"
    OBJECT_TAKEN = "object.taken_over"
    TENANT_CREATED = "tenant.created"
    TENANT_CHANGED = "tenant.changed"
    TENANT_ARCHIVED = "tenant.archived"
    TENANT_DELETED = "tenant.deleted"
    TENANT_RESTORED = "tenant.restored"
    TENANT_IMPORTED = "tenant.imported"
    KEY_MADE = "key.made"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"
    ACCOUNT_MADE = "service_account.made"
    ACCOUNT_DELETED = "service_account.deleted"
    SECRET_SET = "secret.set"  # noqa: S105 - what was done, not a secret
    SECRET_DELETED = "secret.deleted"  # noqa: S105
    DATA_KEY_ROTATED = "data_key.rotated"
    DATA_KEYS_REWRAPPED = "data_keys.rewrapped"
    CREDENTIALS_MADE = "nats_credentials.made"
    CREDENTIALS_REVOKED = "nats_credentials.revoked"
    APPROVAL_DECIDED = "approval.decided"
    ROLLOUT_RETRIED = "rollout.retried"
    RUN_CANCELED = "run.canceled"
    RUN_SUSPENDED = "run.suspended"
    RUN_RESUMED = "run.resumed"
    RUN_FORKED = "run.forked"
    SESSION_IMPORTED = "session.imported"
    MESSAGE_RETRIED = "message.retried"
    LIMIT_CROSSED = "limit.crossed"
    LOGIN_DONE = "login.done"
    ACCESS_REFUSED = "access.refused"
    LOGIN_REFUSED = "login.refused"


ACTIONS: Mapping[Action, str] = {
    Action.OBJECT_CREATED: "an object was applied that was not there",
    Action.OBJECT_CHANGED: "an object was applied with another content",
    Action.OBJECT_DELETED: "an object was deleted",
    Action.OBJECT_TAKEN: "an object was given another owner",
    Action.TENANT_CREATED: "a tenant was made",
    Action.TENANT_CHANGED: "a tenant was changed",
    Action.TENANT_ARCHIVED: "a tenant was closed, and is kept",
    Action.TENANT_DELETED: "a tenant was closed, and is removed",
    Action.TENANT_RESTORED: "an archived tenant was brought back",
    Action.TENANT_IMPORTED: "a tenant was made of an export, that is: a past was written",
    Action.KEY_MADE: "an API key was made",
    Action.KEY_ROTATED: "an API key was given a successor",
    Action.KEY_REVOKED: "an API key was revoked",
    Action.ACCOUNT_MADE: "a service account was made",
    Action.ACCOUNT_DELETED: "a service account was deleted, with its keys",
    Action.SECRET_SET: "a secret was given its first or next version",
    Action.SECRET_DELETED: "a secret was deleted",
    Action.DATA_KEY_ROTATED: "the tenant's data key was given a successor",
    Action.DATA_KEYS_REWRAPPED: "data keys of all tenants were brought under the current key-encryption key",
    Action.CREDENTIALS_MADE: "credentials for a program of the tenant on NATS were made",
    Action.CREDENTIALS_REVOKED: "all credentials of the tenant on NATS were revoked",
    Action.APPROVAL_DECIDED: "a call was approved or denied, or a question answered",
    Action.ROLLOUT_RETRIED: "a revision of an agent that was refused was to be checked again",
    Action.RUN_CANCELED: "a run was to be canceled",
    Action.RUN_SUSPENDED: "a run was to be held",
    Action.RUN_RESUMED: "a suspended run was to go on, or a call in doubt was decided",
    Action.RUN_FORKED: "a run was begun out of another one's past",
    Action.SESSION_IMPORTED: "a session was imported, that is: a past was written",
    Action.MESSAGE_RETRIED: "a message that could not be received was sent again",
    Action.LIMIT_CROSSED: "a limit of the tenant was used as far as it warns, or wholly; told once each time, by the platform",
    Action.LOGIN_DONE: "someone came in with a token of an issuer; told once an hour by each control plane",
    Action.ACCESS_REFUSED: "someone was refused what they may not do: a permission that is missing, or another tenant",
    Action.LOGIN_REFUSED: "a key or a token of the tenant was refused: revoked, expired, or not right",
}


class Outcome(StrEnum):
    """How it ended. What failed for another reason changed nothing and is not audited."""

    DONE = "done"
    REFUSED = "refused"


class Actor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who. `tenant`: the one the credential belongs to, when it acts in another; `on_behalf_of`: whom it acts for."""

    name: str
    kind: str = ""
    tenant: str = ""
    roles: tuple[str, ...] = ()
    on_behalf_of: str = ""


class Origin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From where: the address of the other end, and the id of the request, which a refusal of it and its log lines have too."""

    address: str = ""
    request_id: str = ""


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row. `target` is like `Agent/greeter`; `before` and `after` are JSON values, of a change only what differs."""

    action: Action
    actor: Actor
    target: str
    outcome: Outcome = Outcome.DONE
    origin: Origin = Origin()
    before: Any = None
    after: Any = None
    reason: str = ""
