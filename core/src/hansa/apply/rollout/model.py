"""What is known of an agent's revisions: which one is wanted, which one serves, and what came of checking it."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from hansa.tenants.conditions import Condition


class Rollout(msgspec.Struct, frozen=True):
    """What came of a revision that asks to be checked. `state`: checking, served, refused, superseded. `smoke_run` checks it; `run_state`
    None: it has not been started."""

    state: str
    reason: str
    message: str
    changed_at: datetime
    smoke_run: UUID | None = None
    run_state: str | None = None
    suspended_by: str | None = None
    gate: str | None = None


class Facts(msgspec.Struct, frozen=True):
    """What rows say of an agent. `manifest` is as it was written; `desired` is the revision of that, `serving` 0: none serves yet;
    `rollout`: of the desired one, None: nothing had to be checked."""

    name: str
    generation: int
    updated_at: datetime
    manifest: dict[str, Any]
    source: dict[str, Any] | None
    desired: int
    desired_at: datetime
    serving: int
    rollout: Rollout | None = None


class RevisionStatus(msgspec.Struct, frozen=True):
    """The revision that the object says, and the one that new sessions are on; None: none is yet."""

    desired: int
    serving: int | None


class AgentStatus(msgspec.Struct, frozen=True, rename="camel"):
    """The status of an Agent, in the form that Kubernetes gives it."""

    observed_generation: int
    conditions: tuple[Condition, ...]
    revision: RevisionStatus
    source: dict[str, Any] | None = None
