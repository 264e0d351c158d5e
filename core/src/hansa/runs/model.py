"""Runs, sessions and events as the rest of Hansa sees them; the words of the log.

The log of a session is the truth: every other view is made from it.
"""

from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID

import msgspec

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
    RUN_CANCEL_REQUESTED = "run.cancel_requested"
    RUN_COMPLETED = "run.completed"
    RUN_FAILED = "run.failed"
    RUN_CANCELED = "run.canceled"
    RUN_NEEDS_REVIEW = "run.needs_review"


STATES = ("queued", "running", "waiting", "suspended", "completed", "failed", "canceled", "needs_review")
FINAL_EVENTS = frozenset({EventType.RUN_COMPLETED, EventType.RUN_FAILED, EventType.RUN_CANCELED, EventType.RUN_NEEDS_REVIEW})
FINAL_STATES = frozenset({"completed", "failed", "canceled", "needs_review"})


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
    epoch: int


class RunContextData(msgspec.Struct, frozen=True):
    """What a run was given and what it has done: manifests are decoded JSON; a tool server is its manifest and status."""

    manifest: dict[str, Any]
    providers: list[dict[str, Any]]
    tool_servers: list[dict[str, Any]]
    history: list[tuple[Any, Any]]
    steps: list[Recorded]


class RunView(msgspec.Struct, frozen=True):
    """The parts of a run that the engine needs."""

    id: UUID
    session_id: UUID
    agent: str
    revision: int
    state: str
    input: Any
    output: Any
    error: dict[str, str] | None
    started_at: str | None


class Loaded(msgspec.Struct, frozen=True):
    """A claimed run, ready to be driven. `takeovers`: workers lost in a row without any progress; `elapsed`: seconds since its start."""

    run: RunView
    takeovers: int
    cancel: bool
    seq: int
    elapsed: float
    context: RunContextData


class End(msgspec.Struct, frozen=True):
    """How a run ended: `output` and `error` are JSON-able."""

    state: str
    output: Any = None
    error: dict[str, str] | None = None


class Write(msgspec.Struct, frozen=True):
    """One write of a running run: its number within the epoch (from 1), events, tokens used since the last one, perhaps the end."""

    number: int
    entries: list[Entry]
    usage: Usage
    end: End | None = None


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
