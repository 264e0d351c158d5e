"""The rows of the model database: their fields are the columns of the real tables. Times are seconds on its own clock, JSON is text."""

from uuid import UUID

import msgspec

FINAL = frozenset({"completed", "failed", "canceled"})


class EventRow(msgspec.Struct):
    """`epoch`: that of the claim it was written under; 0: nobody's. The real table has no such column; the oracle wants it."""

    session_id: UUID
    seq: int
    run_id: UUID
    type: str
    step: str | None
    data: str
    epoch: int = 0


class SessionRow(msgspec.Struct):
    """`events` and `runs` are those of the session, in order."""

    id: UUID
    agent: str
    last_seq: int = 0
    newest_run: int = 0
    active_run: UUID | None = None
    forked_from: UUID | None = None
    forked_seq: int | None = None
    revision: int | None = None
    smoke: bool = False
    namespace: str | None = None
    events: list[EventRow] = []
    runs: list["RunRow"] = []


class RunRow(msgspec.Struct):
    """`events` are those of the run, in order."""

    id: UUID
    session_id: UUID
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
    cancel_requested_at: float | None = None
    suspend_requested_at: float | None = None
    suspended_by: str | None = None
    parent_run: UUID | None = None
    parent_step: str | None = None
    depth: int = 0
    started_by: str | None = None
    finished_at: float | None = None
    events: list[EventRow] = []


class WaitRow(msgspec.Struct):
    run_id: UUID
    step: str
    kind: str
    key: str | None
    look_at: float | None


class ApprovalRow(msgspec.Struct):
    id: UUID
    run_id: UUID
    step: str
    kind: str
    subject: str
    expires_at: float | None
    state: str = "pending"
    decided_by: str | None = None
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
    checking: bool = False
    namespace: str | None = None


class RolloutRow(msgspec.Struct):
    agent: str
    revision: int
    digest: bytes
    state: str
    reason: str
    smoke_run: UUID | None
    seconds: int
    concurrency: str
    pool: str
    bound: int | None
    deadline: float | None = None


class LetterRow(msgspec.Struct):
    """Something sent to a session that nobody waited for yet."""

    session_id: UUID
    id: UUID
    name: str
    data: str


class BudgetRow(msgspec.Struct):
    amount: int | None
    on_limit: str
    charges_lost: bool
    tokens_per_day: int | None = None
    spent: int = 0
    reserved: int = 0
    tokens: int = 0
    tokens_reserved: int = 0
    version: int = 0


class ReservationRow(msgspec.Struct):
    run_id: UUID
    step: str
    epoch: int
    agent: str
    model: str
    cost: int
    tokens: int


class UsageRow(msgspec.Struct):
    """Of all days and shards together."""

    agent: str
    model: str
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    lost_calls: int = 0
    lost_tokens: int = 0
    lost_cost: int = 0


class MessageRow(msgspec.Struct):
    id: UUID
    kind: str
    key: str | None
    payload: str
