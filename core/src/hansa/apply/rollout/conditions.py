"""The conditions of an agent: what is so, why, and since when. What can be said stands in
`hansa_crds.conditions`.

All follow from rows each time they are asked for, so they are never out of date. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from hansa.apply.rollout.model import Facts, Rollout
from hansa.errors import FieldError
from hansa.tenants.conditions import Condition, Status
from hansa_crds.conditions import CONDITIONS as OF_KINDS

CONDITIONS: Mapping[str, Mapping[str, str]] = OF_KINDS["Agent"]
"""Type -> reason -> meaning; the meaning under the empty reason is that of the type."""

LONGEST = 1000
HELD = {
    "tenant": "is held, for its tenant is suspended",
    "agent": "is held, for its agent is suspended",
    "budget": "is held, for the tenant's budget is spent",
    "run": "is held until somebody resumes it",
}
STANDS = {
    "running": "is worked on",
    "waiting": "waits; `hansa runs show` says for what",
    "needs_review": "needs a person's review",
}


class Troubles(msgspec.Struct, frozen=True):
    """What is wrong with an agent now. `since`: when what it refers to was last changed; `unread`: why its manifest can't be read."""

    not_allowed: Sequence[FieldError] = ()
    missing: Sequence[FieldError] = ()
    unfit: Sequence[FieldError] = ()
    unread: str = ""
    since: datetime | None = None


def conditions_of(facts: Facts, troubles: Troubles, *, suspended: bool) -> list[Condition]:
    """All conditions of an agent, `Ready` last."""
    others = list(_of_references(facts, troubles))
    return [*others, _ready(facts, others, suspended=suspended)]


def _of_references(facts: Facts, troubles: Troubles) -> Iterable[Condition]:
    # Of what is so, a time that no other object's change moves: else all agents would seem to change with each provider.
    since = {"True": facts.updated_at, "False": max(facts.updated_at, troubles.since or facts.updated_at)}

    def say(type_: str, reason: str, message: str, *, status: Status = "True") -> Condition:
        return Condition(type_, status, reason, message, facts.generation, since[status])

    if troubles.not_allowed:
        yield say("Accepted", "NotAllowed", _told(troubles.not_allowed), status="False")
    else:
        yield say("Accepted", "Accepted", f"it is revision {facts.desired}")
    if troubles.missing:
        yield say("ResolvedRefs", "NotResolved", _told(troubles.missing), status="False")
    else:
        yield say("ResolvedRefs", "Resolved", "all that it names is there")
    if troubles.unread:
        yield say("Compatible", "NotUnderstood", troubles.unread[:LONGEST], status="False")
    elif troubles.unfit:
        yield say("Compatible", "NotSupported", _told(troubles.unfit), status="False")
    else:
        yield say("Compatible", "Supported", "all that it says can be done here")


def _ready(facts: Facts, others: Sequence[Condition], *, suspended: bool) -> Condition:
    def say(status: Status, reason: str, message: str, since: datetime) -> Condition:
        return Condition("Ready", status, reason, message[: 2 * LONGEST], facts.generation, since)

    rollout = facts.rollout
    since = max(facts.desired_at, rollout.changed_at if rollout is not None else facts.desired_at)
    if suspended:
        return say("False", "Suspended", "spec.suspend is set: no run starts, and those under way are held", facts.desired_at)
    if facts.serving != facts.desired:
        meanwhile = f"revision {facts.serving} serves meanwhile" if facts.serving else "no revision serves yet"
        if rollout is not None and rollout.state == "checking":
            return say("Unknown", "Checking", f"revision {facts.desired} is being checked: {standing(rollout)}; {meanwhile}", since)
        told = rollout.message if rollout is not None else "it was not checked"
        return say("False", "Refused", f"revision {facts.desired} was refused: {told}; {meanwhile}", since)
    wrong = [each for each in others if each.status != "True"]
    if wrong:
        text = "; ".join(f"{each.type}: {each.message}" for each in wrong)
        return say("False", "NotReady", text, max(each.last_transition_time for each in wrong))
    return say("True", "Serving", f"revision {facts.desired} serves", since)


def standing(rollout: Rollout) -> str:
    """What the run that checks a revision does now."""
    if rollout.run_state is None:
        return "its run is about to be started"
    run = f"run {rollout.smoke_run}"
    match rollout.run_state:
        case "queued" if rollout.gate == "agent":
            return f"{run} waits for a slot of its agent (limits.concurrentRuns)"
        case "queued":
            return f"{run} waits for a worker"
        case "suspended":
            return f"{run} {HELD.get(rollout.suspended_by or '', 'is held')}"
        case state:
            return f"{run} {STANDS.get(state, 'has ended')}"


def _told(errors: Sequence[FieldError]) -> str:
    return "; ".join(f"{error.path}: {error.message}" for error in errors)[:LONGEST]
