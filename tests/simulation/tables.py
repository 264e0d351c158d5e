"""The tables of the model database, and what all verbs share, as in definitions/log.sql: log, gates, slots, what follows from an end."""

import hashlib
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from simulation.rows import (
    AgentRow,
    ApprovalRow,
    BudgetRow,
    EventRow,
    LetterRow,
    MessageRow,
    ReservationRow,
    RolloutRow,
    RunRow,
    SessionRow,
    UsageRow,
    WaitRow,
)

Row = dict[str, Any]
TENANT = UUID(int=0xA)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
"""Second 0 of every world."""


def encoded(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def by(starter: str | None) -> str:
    """What the first event of a run says of who started it, after its input."""
    return f',"by":{starter}' if starter else ""


def decoded(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def named(text: str) -> UUID:
    """md5(text)::uuid"""
    return UUID(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest())


class Tables:
    """One tenant's rows."""

    def __init__(self, now: Callable[[], float], *, broken: str = "") -> None:
        self.now = now
        self.broken = broken
        self.suspended = False
        """Whether the tenant is."""
        self.agents: dict[str, AgentRow] = {}
        self.sessions: dict[UUID, SessionRow] = {}
        self.runs: dict[UUID, RunRow] = {}
        self.waits: dict[tuple[UUID, str], WaitRow] = {}
        self.approvals: dict[UUID, ApprovalRow] = {}
        self.mailbox: list[LetterRow] = []
        self.outbox: dict[UUID, MessageRow] = {}
        self.values: dict[bytes, str | None] = {}
        self.budget: BudgetRow | None = None
        self.reservations: dict[tuple[UUID, str], ReservationRow] = {}
        self.usage: dict[tuple[str, str], UsageRow] = {}
        self.rollouts: dict[tuple[str, int], RolloutRow] = {}
        self.overdrawn: list[str] = []
        """When more was spent than the budget was at that moment."""
        self.seen = Counter[str]()
        """What has happened, for who wants to know what was tried."""
        self.epoch = 0
        """The claim whose write is being made."""

    def log(self, run: RunRow, type_: str, step: str | None, data: str) -> None:
        session = self.sessions[run.session_id]
        session.last_seq += 1
        event = EventRow(session.id, session.last_seq, run.id, type_, step, data, self.epoch)
        session.events.append(event)
        run.events.append(event)

    def add_run(self, run: RunRow) -> None:
        session = self.sessions[run.session_id]
        session.newest_run = run.queued_seq
        session.active_run = session.active_run or run.id
        session.runs.append(run)
        self.runs[run.id] = run

    def waits_of(self, run: UUID | None) -> list[WaitRow]:
        return sorted((wait for wait in self.waits.values() if wait.run_id == run), key=lambda wait: wait.step)

    def send(self, id_: UUID, kind: str, key: str | None, payload: Any) -> None:
        self.outbox.setdefault(id_, MessageRow(id_, kind, key, encoded(payload)))

    def run_json(self, run: RunRow) -> str:
        shown = run.state in ("waiting", "suspended") or run.gate == "time"
        return encoded(
            {
                "id": run.id,
                "session_id": run.session_id,
                "agent": run.agent,
                "revision": run.revision,
                "state": run.state,
                "priority": run.priority,
                "input": _raw(run.input),
                "output": _raw(run.output),
                "error": _raw(run.error),
                "usage": {"input_tokens": run.input_tokens, "output_tokens": run.output_tokens},
                "epoch": run.epoch,
                "attempt": run.attempt,
                "parent_run": run.parent_run,
                "suspended_by": run.suspended_by,
                "started_by": _raw(run.started_by),
                "waits": [{"kind": wait.kind, "step": wait.step, "key": wait.key} for wait in self.waits_of(run.id)] if shown else [],
            }
        )

    def run_ready(self, run: RunRow) -> None:
        agent = self.agents.get(run.agent)
        if not run.slot and agent is not None and agent.bound is not None:
            if agent.held >= agent.bound:
                run.state, run.gate, run.woken, run.suspended_by = "queued", "agent", False, None
                self.seen["a run waits for a slot"] += 1
                return
            agent.held += 1
            run.slot = True
        run.state, run.gate, run.woken, run.suspended_by = "queued", None, False, None

    def slot_leave(self, run: RunRow) -> None:
        if run.slot and self.broken != "slotkept":
            run.slot = False
            agent = self.agents.get(run.agent)
            if agent is not None:
                agent.held -= 1
            self.slots_fill(run.agent)

    def slots_fill(self, name: str) -> None:
        agent = self.agents.get(name)
        gated = [run for run in self.runs.values() if run.gate == "agent" and run.agent == name and run.state == "queued"]
        if not gated:
            return
        free = len(gated) if agent is None or agent.bound is None else max(0, agent.bound - agent.held)
        for run in sorted(gated, key=_first)[:free]:
            self.seen["a run gets the slot that it waited for"] += 1
            run.gate, run.woken, run.slot = None, False, agent is not None and agent.bound is not None
            if agent is not None and agent.bound is not None:
                agent.held += 1

    def run_ended(self, run: RunRow) -> None:
        self.slot_leave(run)
        self._drop_waits(run)
        if run.parent_run is not None:
            told: Row = {"id": run.id, "parent_run": run.parent_run, "parent_step": run.parent_step, "state": run.state}
            told |= {"output": _raw(run.output), "error": _raw(run.error)}
            told["usage"] = {"input_tokens": run.input_tokens, "output_tokens": run.output_tokens}
            self.send(named(f"{run.id}.return"), "run.returned", str(run.parent_run), told)
        session = self.sessions[run.session_id]
        if session.active_run == run.id:
            later = next((each for each in session.runs if each.queued_seq > run.queued_seq and each.state == "queued"), None)
            session.active_run = None if later is None else later.id
            if later is not None:
                self.seen["the next run of a session goes on"] += 1
                self.run_ready(later)

    def _drop_waits(self, run: RunRow) -> None:
        for wait in self.waits_of(run.id):
            del self.waits[wait.run_id, wait.step]
            if wait.kind == "approval":
                self.seen["an approval is canceled with its run"] += 1
                approval = self.approvals[UUID(wait.key)]
                approval.state = "canceled" if approval.state == "pending" else approval.state
            elif wait.kind == "child":
                self.seen["a called run is canceled with its caller"] += 1
                self.send(named(f"{wait.key}.cancel"), "run.cancel", str(run.id), {"id": wait.key})
            elif wait.kind == "rollout":
                self.rollout_end(run)

    def rollout_stop(self, name: str) -> None:
        agent = self.agents.get(name)
        if agent is None or not agent.checking:
            return
        agent.checking = False
        for found in self.rollouts.values():
            if (found.agent, found.state) == (name, "checking"):
                self.seen["a check is superseded"] += 1
                found.state, found.reason = "superseded", "Superseded"
                self.send(named(f"{found.smoke_run}.cancel"), "run.cancel", str(found.smoke_run), {"id": found.smoke_run})

    def rollout_of(self, run: RunRow) -> RolloutRow | None:
        """What a run checks, as long as it is checked by this run."""
        found = self.rollouts.get((run.agent, run.revision))
        return found if found is not None and (found.smoke_run, found.state) == (run.id, "checking") else None

    def rollout_end(self, run: RunRow) -> None:
        found = self.rollout_of(run)
        if found is None:
            self.seen["a check ends that nobody wants any more"] += 1
        elif run.state == "completed":
            self.rollout_decide(found, "served", "Passed")
        else:
            self.rollout_decide(found, "refused", "SmokeFailed" if run.state == "failed" else "SmokeCanceled")

    def rollout_decide(self, rollout: RolloutRow, state: str, reason: str) -> None:
        self.seen[f"a revision is {state}: {reason}"] += 1
        rollout.state, rollout.reason = state, reason
        agent = self.agents[rollout.agent]
        agent.checking = False
        if state == "served":
            agent.revision, agent.concurrency, agent.pool, agent.bound = rollout.revision, rollout.concurrency, rollout.pool, rollout.bound
            self.slots_fill(rollout.agent)


def _raw(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text)


def _first(run: RunRow) -> tuple[int, UUID]:
    return (-run.priority, run.id)
