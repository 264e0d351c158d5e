"""Runs, sessions and events as the rest of Hansa sees them; the words of the log.

The log of a session is the truth: every other view is made from it.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from hansa.auth.model import Starter
from hansa_crds import RoleBinding
from hansa_sdk import Usage

T = TypeVar("T")


class EventType(StrEnum):
    """What can stand in a log. Those with a step are what a replay answers from."""

    RUN_QUEUED = "run.queued"
    RUN_STARTED = "run.started"
    RUN_RESUMED = "run.resumed"
    MODEL_COMPLETED = "model.completed"
    TOOL_CALLED = "tool.called"
    TOOL_COMPLETED = "tool.completed"
    VALUE_RECORDED = "value.recorded"
    LOG = "log"
    RUN_CALLED = "run.called"
    RUN_RETURNED = "run.returned"
    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_DECIDED = "approval.decided"
    TIMER_STARTED = "timer.started"
    TIMER_FIRED = "timer.fired"
    EVENT_AWAITED = "event.awaited"
    EVENT_RECEIVED = "event.received"
    REVIEW_DECIDED = "review.decided"
    RUN_RETRYING = "run.retrying"
    RUN_SUSPENDED = "run.suspended"
    RUN_CONTINUED = "run.continued"
    RUN_CANCEL_REQUESTED = "run.cancel_requested"
    RUN_COMPLETED = "run.completed"
    RUN_FAILED = "run.failed"
    RUN_CANCELED = "run.canceled"
    RUN_NEEDS_REVIEW = "run.needs_review"


STATES = ("queued", "running", "waiting", "suspended", "completed", "failed", "canceled", "needs_review")
FINAL_EVENTS = frozenset({EventType.RUN_COMPLETED, EventType.RUN_FAILED, EventType.RUN_CANCELED})
FINAL_STATES = frozenset({"completed", "failed", "canceled"})
RESTING_STATES = frozenset({*FINAL_STATES, "needs_review"})
"""States that nothing but a person changes."""


class Entry(msgspec.Struct, frozen=True):
    """An event to be written: `data` is any JSON-able value."""

    type: EventType
    data: Any
    step: str | None = None


class Recorded(msgspec.Struct, frozen=True):
    """A step's event as read back."""

    type: EventType
    step: str
    data: Any


class Claim(msgspec.Struct, frozen=True):
    """The right to drive a run until the lease ends; every write carries the epoch."""

    tenant_id: UUID
    id: UUID
    session_id: UUID
    epoch: int


class CallableAgent(msgspec.Struct, frozen=True):
    """An agent that another may call."""

    name: str
    description: str


class World(msgspec.Struct, frozen=True):
    """What objects say of an agent's revision, as of `version`: decoded JSON; a tool server is its manifest and status; `allowed` is
    that of its Tenant, if it says any; `bindings` its Tenant's roles, `owner` who applied it."""

    version: int
    manifest: dict[str, Any]
    providers: list[dict[str, Any]]
    tool_servers: list[dict[str, Any]]
    agents: list[CallableAgent]
    allowed: dict[str, Any] | None = None
    bindings: list[RoleBinding] = []
    owner: Starter | None = None


class RunView(msgspec.Struct, frozen=True):
    """The parts of a run that the engine needs."""

    id: UUID
    session_id: UUID
    agent: str
    revision: int
    state: str
    input: Any
    output: Any = None
    error: dict[str, str] | None = None
    started_by: Starter | None = None


class Past(msgspec.Struct, frozen=True):
    """What was said before a run in its session, (input, output), and what the run has done."""

    history: list[tuple[Any, Any]]
    steps: list[Recorded]


class Loaded(msgspec.Struct, frozen=True):
    """A claimed run, ready to be driven. `takeovers`: workers lost in a row without any progress; `active`: seconds it was driven so far;
    `wish`: cancel, suspend, suspend_agent or suspend_tenant; `world`: the version of the objects; `damage`: what is missing of
    its log, if anything; `metered`: its tenant has a budget; `started_by`: None for one of an earlier release."""

    run: RunView
    takeovers: int
    attempt: int
    depth: int
    wish: str | None
    active: float
    world: int
    history: list[tuple[Any, Any]]
    steps: list[Recorded]
    damage: str = ""
    metered: bool = False
    started_by: Starter | None = None


class Wait(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a run begins to wait for at a step. `kind`: timer, retry, child, approval or event; `key`: the child's or approval's id, or
    the event's name; `seconds`: until it is given up, or due."""

    step: str
    kind: str
    key: str | None = None
    seconds: float | None = None
    data: dict[str, Any] | None = None


class End(msgspec.Struct, frozen=True):
    """How a run goes on without its worker: an end, or `waiting`, or `needs_review`. `output` and `error` are JSON-able."""

    state: str
    output: Any = None
    error: dict[str, str] | None = None


class Ask(msgspec.Struct, frozen=True):
    """What a step's call of a model can take at most: tokens, and their prices in millionths of a token's; `lost_*` is what earlier
    attempts may have taken; `least`: fewer tokens of an answer are of no use; `last`: it will not be asked again."""

    step: str
    agent: str
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    least: int = 0
    input_price: float = 0.0
    output_price: float = 0.0
    currency: str | None = None
    lost_tokens: int = 0
    lost_cost: int = 0
    last: bool = False


class Told(msgspec.Struct, frozen=True):
    """Which limit stands against a call (budget, tokensPerDay, currency), in millionths or tokens; `version` is that of the budget."""

    limit: str
    used: int = 0
    bound: int = 0
    currency: str = ""
    period: str = "day"
    resets_at: datetime = datetime(9999, 1, 1, tzinfo=UTC)
    on_limit: str = "reject"
    version: int = 0
    reserved: int = 0
    needed: int = 0
    other: str = ""


class Grant(msgspec.Struct, frozen=True):
    """What became of an ask: granted, wait, refused or fenced; and how many tokens the answer may have."""

    outcome: str
    output_tokens: int
    told: Told | None = None


class Unsent(msgspec.Struct, frozen=True):
    """Why a message may not be sent: the tenant has sent so many today, may send no more, and may again at that time."""

    used: int
    bound: int
    resets_at: datetime


class Spend(msgspec.Struct, frozen=True):
    """What a step's calls of one model have cost, in tokens and millionths; `lost_*`: those whose answer nobody has, at most."""

    step: str
    agent: str
    model: str
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    lost_calls: int = 0
    lost_tokens: int = 0
    lost_cost: int = 0


class Write(msgspec.Struct, frozen=True):
    """One write of a running run: its number within the epoch (from 1), events, waits begun, tokens used since the last one, perhaps
    the end. Data and output are canonical JSON; `taken` are the large values that they refer to, by SHA-256; `spends` are of steps that
    are over."""

    number: int
    entries: list[Entry]
    waits: list[Wait]
    usage: Usage
    end: End | None = None
    taken: dict[bytes, bytes] = {}
    spends: list[Spend] = []


class Written(msgspec.Struct, frozen=True):
    """What a write came to: the log's last number, the run's state, and whether its tenant has a budget now."""

    seq: int
    state: str
    metered: bool = False


class Live(msgspec.Struct, frozen=True, omit_defaults=True):
    """News of a session over the bus: a new last number, a piece of text, or that a step's text starts again."""

    seq: int = 0
    run_id: str = ""
    step: str = ""
    text: str = ""
    reset: bool = False


def plain(value: Any) -> Any:
    """A value as it will be read back from the log. Raises `TypeError` or `ValueError` for what is not JSON."""
    return msgspec.json.decode(canonical(value))


def canonical(value: Any) -> bytes:
    """The one encoding of a JSON value: keys sorted, no blanks. Equal values have equal bytes."""
    return msgspec.json.encode(value, order="sorted")


def as_recorded(value: Any, type_: type[T]) -> T:
    """A value as it will be read back from the log."""
    return msgspec.json.decode(canonical(msgspec.to_builtins(value)), type=type_)
