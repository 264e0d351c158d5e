"""The pure part of tool calls: what the log says of one, whether it may be made again, what came of a called agent."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from hansa.auth.bindings import places_of
from hansa.runs.budget.metering import MESSAGES_HINT, unsent_sentence
from hansa.runs.model import EventType, Unsent
from hansa_sdk import Effect, RunFailed, ToolOutcome

STARTING = "runs:start"
MAX_DEPTH = 8
"""Most calls of agents by agents, one within the other."""
UNSENT = "limit_messages_per_day"
SAYS_CALL = frozenset({EventType.APPROVAL_REQUESTED, EventType.TOOL_CALLED, EventType.TOOL_COMPLETED, EventType.RUN_CALLED})
TYPES = (
    EventType.APPROVAL_REQUESTED,
    EventType.APPROVAL_DECIDED,
    EventType.REVIEW_DECIDED,
    EventType.RUN_CALLED,
    EventType.RUN_RETURNED,
    EventType.TOOL_CALLED,
    EventType.TOOL_COMPLETED,
)


class Call(msgspec.Struct, frozen=True):
    """A call as it is made, shown and recorded."""

    name: str
    arguments: dict[str, Any]


class InDoubt(Exception):
    """A call with an unsafe effect was begun, and nobody knows whether it was made. `call` is the last intent."""

    def __init__(self, call: dict[str, Any]) -> None:
        super().__init__(call["name"])
        self.call = call


class NeedsReview(asyncio.CancelledError):
    """A call with an unsafe effect was begun and nobody knows whether it was done: a person must decide."""

    def __init__(self, step: str, call: dict[str, Any]) -> None:
        super().__init__(f"{call['name']} at step {step}")
        self.step = step
        self.call = call


def next_attempt(known: Mapping[EventType, Any]) -> int:
    """The number of the attempt that must be announced before the call is made; 0: it is announced already.

    Raises `InDoubt` for a call with an unsafe effect that was begun, unless a person has said that it be made again.
    """
    intent, decided = known.get(EventType.TOOL_CALLED), known.get(EventType.REVIEW_DECIDED)
    if intent is None:
        return 1
    if intent["effect"] != Effect.UNSAFE:
        return 0
    if decided is None or decided["decision"] != "retry" or decided["attempt"] != intent["attempt"]:
        raise InDoubt(intent)
    return int(intent["attempt"]) + 1


def refused(decided: Mapping[str, Any]) -> ToolOutcome | None:
    """What the model is told of a call that a person did not approve; None: it was approved."""
    if decided["decision"] == "approved":
        return None
    if decided["decision"] == "expired":
        return ToolOutcome("nobody approved the call in time, so it was not made", is_error=True)
    reason = f": {decided['comment']}" if decided.get("comment") else ""
    return ToolOutcome(f"a person did not approve the call, so it was not made{reason}", is_error=True)


def outcome_of(returned: Mapping[str, Any]) -> ToolOutcome:
    """What the caller sees of an agent's run that it called."""
    if returned["state"] == "completed":
        return ToolOutcome(returned["output"])
    error = returned["error"]
    return ToolOutcome(f"{error['code']}: {error['detail']}" if error else "canceled: its run was canceled", is_error=True)


def beyond(agent: str, may: frozenset[str]) -> ToolOutcome | None:
    """What the model is told when this run may call no agents at all; None: it may, those in some namespaces or all."""
    return ToolOutcome(_beyond(agent, "call agents"), is_error=True) if places_of(STARTING, may) == () else None


def heard_in(agent: str, may: frozenset[str]) -> dict[str, Any]:
    """Where events that this run publishes are heard, as `within`; nothing: everywhere. Raises `RunFailed` when it may publish none."""
    places = places_of(STARTING, may)
    if places == ():
        raise RunFailed(_beyond(agent, "publish events"), code="not_permitted", hint="`hansa runs show` says who started the run.")
    return {} if places is None else {"within": list(places)}


def _beyond(agent: str, what: str) -> str:
    return (
        f"agent {agent!r} may not {what} here: that needs the permission runs:start, of whoever started the run (started_by), of whoever"
        " applied the agent, and in the roles that the Tenant binds to it"
    )


def elsewhere(agent: str, places: Sequence[str]) -> dict[str, Any]:
    """What a call returns of an agent that stands where this run may call none."""
    detail = (
        f"agent {agent!r} was not called: it stands in a namespace in which this run may not call agents. The permission runs:start"
        f" reaches no further than {', '.join(places) or 'nowhere'}, of whoever started the run, of whoever applied the calling agent and"
        " in the roles that the Tenant binds to it, taken together"
    )
    return {"code": "not_permitted", "detail": detail, "hint": "`hansa runs show` says who started the run."}


def too_deep(agent: str) -> dict[str, Any]:
    """What a call returns that would lead too deep."""
    detail = f"agent {agent!r} was not called: {MAX_DEPTH} agents call each other already"
    return {"state": "failed", "output": None, "error": {"code": "call_depth", "detail": detail, "hint": "Do agents call in a circle?"}}


def unsent_call(agent: str, limit: Unsent) -> dict[str, Any]:
    """What a call returns that is one message too many."""
    detail = f"agent {agent!r} was not called: {unsent_sentence(limit)}"
    return {"state": "failed", "output": None, "error": {"code": UNSENT, "detail": detail, "hint": MESSAGES_HINT}}


def unsent_event(name: str, limit: Unsent) -> RunFailed:
    """What becomes of a run that publishes an event which is one message too many."""
    return RunFailed(f"event {name!r} was not published: {unsent_sentence(limit)}", code=UNSENT, hint=MESSAGES_HINT)
