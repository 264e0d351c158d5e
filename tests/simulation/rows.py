"""The rows of the model database. Times are seconds on its own clock; JSON is text, as in the real one."""

from typing import Any
from uuid import UUID

import msgspec

FINAL = frozenset({"completed", "failed", "canceled"})


class EventRow(msgspec.Struct):
    """`epoch`: that of the claim it was written under; 0: nobody's. The real table has no such column; the oracle wants it."""

    seq: int
    run: UUID
    type: str
    step: str | None
    data: str
    epoch: int = 0


class SessionRow(msgspec.Struct):
    id: UUID
    agent: str
    last_seq: int = 0
    newest_run: int = 0
    active_run: UUID | None = None
    events: list[EventRow] = []
    runs: list[UUID] = []


class RunRow(msgspec.Struct):
    id: UUID
    session: UUID
    queued_seq: int
    agent: str
    revision: int
    input: str
    state: str = "queued"
    gate: str | None = None
    pool: str = "default"
    priority: int = 0
    slot: bool = False
    woken: bool = False
    rolled_back: bool = False
    interrupted: bool = False
    output: str | None = None
    error: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    epoch: int = 0
    takeovers: int = 0
    writes: int = 0
    attempt: int = 1
    active: float = 0.0
    claimed_at: float = 0.0
    lease_until: float = 0.0
    cancel_requested: bool = False
    suspend_requested: bool = False
    suspended_by: str | None = None
    parent_run: UUID | None = None
    parent_step: str | None = None
    depth: int = 0


class WaitRow(msgspec.Struct):
    run: UUID
    step: str
    kind: str
    key: str | None
    look_at: float | None


class ApprovalRow(msgspec.Struct):
    id: UUID
    run: UUID
    step: str
    kind: str
    subject: Any
    expires_at: float | None
    state: str = "pending"
    by: str | None = None
    comment: str | None = None
    answer: str | None = None


class AgentRow(msgspec.Struct):
    name: str
    revision: int = 1
    suspended: bool = False
    concurrency: str = "Enqueue"
    pool: str = "default"
    bound: int | None = None
    held: int = 0


class LetterRow(msgspec.Struct):
    """Something sent to a session that nobody waited for yet."""

    session: UUID
    id: UUID
    name: str
    data: str


class MessageRow(msgspec.Struct):
    id: UUID
    kind: str
    key: str | None
    payload: str
