"""The tables of the model database, and what all of its verbs share: the log, gates, slots, what follows from a run's end."""

import hashlib
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec

from simulation.rows import AgentRow, ApprovalRow, EventRow, LetterRow, MessageRow, RunRow, SessionRow, WaitRow

Row = dict[str, Any]
TENANT = UUID(int=0xA)


def encoded(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def decoded(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def named(text: str) -> UUID:
    """md5(text)::uuid"""
    return UUID(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest())


class Tables:
    """One tenant's rows."""

    def __init__(self, now: Callable[[], float], *, broken: str = "") -> None:
        self.now = now
        self.broken = broken
        self.agents: dict[str, AgentRow] = {}
        self.sessions: dict[UUID, SessionRow] = {}
        self.runs: dict[UUID, RunRow] = {}
        self.waits: dict[tuple[UUID, str], WaitRow] = {}
        self.approvals: dict[UUID, ApprovalRow] = {}
        self.mailbox: list[LetterRow] = []
        self.outbox: list[MessageRow] = []
        self.values: dict[bytes, str | None] = {}
        self.weight = 1
        self.concurrent_runs: int | None = None
        self.epoch = 0
        """The claim whose write is being made."""

    def log(self, run: RunRow, type_: str, step: str | None, data: str) -> None:
        session = self.sessions[run.session]
        session.last_seq += 1
        session.events.append(EventRow(session.last_seq, run.id, type_, step, data, self.epoch))

    def events(self, run: RunRow) -> list[EventRow]:
        """The run's own, in order."""
        return [event for event in self.sessions[run.session].events if event.run == run.id]

    def waits_of(self, run: RunRow) -> list[WaitRow]:
        return sorted((wait for wait in self.waits.values() if wait.run == run.id), key=lambda wait: wait.step)

    def send(self, id_: UUID, kind: str, key: str | None, payload: Any) -> None:
        if all(message.id != id_ for message in self.outbox):
            self.outbox.append(MessageRow(id_, kind, key, encoded(payload)))

    def run_json(self, run: RunRow) -> str:
        shown = run.state in ("waiting", "suspended") or run.gate == "time"
        waits = [{"kind": wait.kind, "step": wait.step, "key": wait.key} for wait in self.waits_of(run)] if shown else []
        return encoded(
            {
                "id": run.id,
                "session_id": run.session,
                "agent": run.agent,
                "revision": run.revision,
                "state": run.state,
                "priority": run.priority,
                "input": decoded(run.input),
                "output": decoded(run.output),
                "error": decoded(run.error),
                "usage": {"input_tokens": run.input_tokens, "output_tokens": run.output_tokens},
                "epoch": run.epoch,
                "attempt": run.attempt,
                "parent_run": run.parent_run,
                "suspended_by": run.suspended_by,
                "waits": waits,
            }
        )

    def run_ready(self, run: RunRow) -> None:
        agent = self.agents.get(run.agent)
        if not run.slot and agent is not None and agent.bound is not None:
            if agent.held >= agent.bound:
                run.state, run.gate = "queued", "agent"
                return
            agent.held += 1
            run.slot = True
        run.state, run.gate, run.woken, run.suspended_by = "queued", None, False, None

    def slot_leave(self, run: RunRow) -> None:
        if run.slot:
            run.slot = False
            self.agents[run.agent].held -= 1
            self.slots_fill(run.agent)

    def slots_fill(self, name: str) -> None:
        agent = self.agents.get(name)
        bounded = agent is not None and agent.bound is not None
        free = (agent.bound or 0) - agent.held if agent is not None and bounded else len(self.runs)
        gated = [run for run in self.runs.values() if run.agent == name and run.state == "queued" and run.gate == "agent"]
        for run in sorted(gated, key=lambda run: (-run.priority, run.id))[: max(free, 0)]:
            run.gate, run.woken, run.slot = None, False, bounded
            if agent is not None and bounded:
                agent.held += 1

    def run_ended(self, run: RunRow) -> None:
        self.slot_leave(run)
        for wait in self.waits_of(run):
            del self.waits[wait.run, wait.step]
            if wait.kind == "approval":
                approval = self.approvals[UUID(wait.key)]
                approval.state = "canceled" if approval.state == "pending" else approval.state
            elif wait.kind == "child":
                self.send(named(f"{wait.key}.cancel"), "run.cancel", str(run.id), {"id": wait.key})
        if run.parent_run is not None:
            told: Row = {"id": run.id, "parent_run": run.parent_run, "parent_step": run.parent_step, "state": run.state}
            told |= {"output": decoded(run.output), "error": decoded(run.error)}
            told["usage"] = {"input_tokens": run.input_tokens, "output_tokens": run.output_tokens}
            self.send(named(f"{run.id}.return"), "run.returned", str(run.parent_run), told)
        session = self.sessions[run.session]
        if session.active_run == run.id:
            later = [self.runs[each] for each in session.runs]
            waiting = [each for each in later if each.queued_seq > run.queued_seq and each.state == "queued"]
            session.active_run = waiting[0].id if waiting else None
            if waiting:
                self.run_ready(waiting[0])
