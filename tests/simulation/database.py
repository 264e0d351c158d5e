"""A model of the engine's database: each SQL function is a method of the same name, with the same arguments and rows.

Everything of one tenant, in memory, each verb at once; each module is a file of SQL, with what later ones replace of it.
test_conformance.py holds it against the real functions. `broken` leaves out one rule on purpose, for a test that wants to see that it
is missed: see BROKEN. Not modelled: several tenants, idempotency keys, cordoned regions, which value is referred to by which log.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from simulation.checks import Checks
from simulation.money import Spend
from simulation.rows import FINAL, RunRow, SessionRow, WaitRow
from simulation.tables import BEGIN, TENANT, Row, by, encoded

BROKEN = ("nofence", "lostwake", "doublewrite", "slotkept", "noreserve", "ghost")


class New(msgspec.Struct):
    """A run as run_start is given it."""

    id: UUID
    new_session_id: UUID
    agent: str | None = None
    session_id: UUID | None = None
    revision: int | None = None
    priority: int = 0
    start_at: datetime | None = None
    parent_run: UUID | None = None
    parent_step: str | None = None
    depth: int = 0
    started_by: Row | None = None
    within: list[str] | None = None


class Entry(msgspec.Struct):
    type: str
    data: str
    step: str | None = None


class Asked(msgspec.Struct):
    """A write as run_write is given it."""

    session: UUID
    run: UUID
    epoch: int
    number: int
    input_tokens: int
    output_tokens: int
    entries: list[Entry]
    waits: list[str] = []
    state: str | None = None
    output: str | None = None
    error: str | None = None
    spends: list[Spend] = []


NEW, ASKED = msgspec.json.Decoder(New), msgspec.json.Decoder(list[Asked])


class ModelDatabase(Checks):
    """One tenant's rows and the verbs over them: those of definitions/accept.sql and definitions/drive.sql are here."""

    # Accepting.

    def run_start(self, *arguments: Any) -> list[Row]:
        """Arguments: tenant, principal, route, key, digest, region, new, input. Keys are not modelled."""
        new, text = NEW.decode(arguments[6]), arguments[7]
        session = self.sessions.get(new.session_id) if new.session_id else None
        name = new.agent or (session.agent if session else None)
        agent = self.agents.get(name or "")
        refused = self._refused(new, session, name)
        if refused is not None or agent is None:
            return [refused or {"outcome": "no_agent", "answer": None}]
        spent = self.budget_refusal()
        if spent is not None:
            self.seen["a run is refused for its budget"] += 1
            return [{"outcome": "budget_spent", "answer": spent}]
        revision = new.revision or (session.revision if session else None) or agent.revision
        unserved = self.unserved(agent, session, revision)
        if unserved is not None:
            return [unserved]
        if session is not None and session.active_run is not None and agent.concurrency != "Enqueue":
            if agent.concurrency == "Reject":
                self.seen["a run is refused while its session is busy"] += 1
                return [{"outcome": "session_busy", "answer": encoded(session.active_run)}]
            self.session_interrupt(session, rollback=agent.concurrency == "Rollback")
        start = None if new.start_at is None else (new.start_at - BEGIN).total_seconds()
        timed = start is not None and start > self.now()
        gate = "time" if timed else "session" if session and session.active_run else "agent" if agent.bound is not None else None
        if session is None:
            session = self.sessions[new.new_session_id] = SessionRow(new.new_session_id, agent.name, namespace=agent.namespace)
        session.revision = revision
        run = RunRow(new.id, session.id, session.last_seq + 1, agent.name, revision, text, gate=gate, pool=agent.pool)
        run.priority, run.depth, run.parent_run, run.parent_step = new.priority, new.depth, new.parent_run, new.parent_step
        run.started_by = None if new.started_by is None else encoded(new.started_by)
        self.add_run(run)
        self.log(run, "run.queued", None, f'{{"input":{text}{by(run.started_by)}}}')
        answer = self.run_json(run)
        if gate == "time":
            self.waits[run.id, ""] = WaitRow(run.id, "", "start", None, start)
            answer = self.run_json(run)
        elif gate == "agent":
            self.slots_fill(agent.name)
        return [{"outcome": "accepted", "answer": answer}]

    def _refused(self, new: New, session: SessionRow | None, name: str | None) -> Row | None:
        if new.session_id and (session is None or (new.within is not None and session.namespace not in new.within)):
            return {"outcome": "no_session", "answer": None}
        if session is not None and session.agent != name:
            return {"outcome": "other_agent", "answer": encoded(session.agent)}
        if session is not None and session.smoke:
            self.seen["somebody speaks in a session that is a check"] += 1
            return {"outcome": "smoke_session", "answer": None}
        if self.suspended and new.parent_run is None:
            self.seen["a run is refused in a suspended tenant"] += 1
            return {"outcome": "tenant_suspended", "answer": None}
        agent = self.agents.get(name or "")
        if agent is not None and new.within is not None and agent.namespace not in new.within:
            self.seen["a run is refused where its starter has no say"] += 1
            return {"outcome": "elsewhere", "answer": None}
        return {"outcome": "agent_suspended", "answer": None} if agent is not None and agent.suspended else None

    def run_start_many(self, *arguments: Any) -> list[Row]:
        """Arguments: tenant, region, principals, routes, keys, digests, new, inputs. The usual ones are done before the others."""
        news = list(zip(arguments[6], arguments[7], strict=True))
        agents = [self.agents.get(NEW.decode(new).agent or "") for new, _ in news]
        closed = self.suspended or self.budget_refusal() is not None
        usual = [
            agent is not None and agent.bound is None and not agent.suspended and agent.revision > 0 and not closed for agent in agents
        ]
        rows: list[Row] = []
        for n in sorted(range(len(news)), key=lambda n: not usual[n]):
            (row,) = self.run_start(arguments[0], None, None, None, None, arguments[1], *news[n])
            rows.append(row | {"n": n + 1})
        return rows

    # Driving.

    def run_claim(self, *arguments: Any) -> list[Row]:
        """Arguments: worker, limit, lease, pool, turn, credit."""
        limit, lease, pool, now = arguments[1], arguments[2].total_seconds(), arguments[3], self.now()
        lost = [run for run in self.runs.values() if run.state == "running" and run.lease_until < now and run.pool == pool]
        lost = sorted(lost, key=lambda run: run.lease_until)[:limit]
        for run in lost:
            self.seen["takeover"] += 1
            run.active += min(run.lease_until, now) - run.claimed_at
            run.takeovers += 1
        ready = [run for run in self.runs.values() if run.state == "queued" and run.gate is None and run.pool == pool]
        taken = [*lost, *sorted(ready, key=lambda run: (-run.priority, run.id))[: limit - len(lost)]]
        for run in taken:
            run.state, run.epoch, run.writes, run.claimed_at, run.lease_until = "running", run.epoch + 1, 0, now, now + lease
        rows: list[Row] = [{"tenant_id": TENANT, "id": run.id, "session_id": run.session_id, "epoch": run.epoch} for run in taken]
        return [*rows, {"id": None, "turn": arguments[4], "credit": 0}]

    def run_renew(self, *arguments: Any) -> list[Row]:
        """Arguments: tenants, runs, epochs, lease."""
        held = [self.runs[run] for run, epoch in zip(*arguments[1:3], strict=True) if self.owned(run, epoch)]
        for run in held:
            run.lease_until = self.now() + arguments[3].total_seconds()
        self.seen["a lease is found lost"] += len(arguments[1]) - len(held)
        return [{"id": run.id, "wish": self._wish(run)} for run in held]

    def run_release(self, *arguments: Any) -> int:
        """Arguments: tenants, runs, epochs, how long until they may be claimed."""
        pause = arguments[3].total_seconds()
        held = [self.runs[run] for run, epoch in zip(*arguments[1:3], strict=True) if self.owned(run, epoch)]
        self.seen["a run is handed over"] += len(held)
        for run in held:
            run.active += self.now() - run.claimed_at
            run.lease_until = run.claimed_at = self.now() + pause
            run.takeovers = max(run.takeovers - 1, -1)
        return len(held)

    def _wish(self, run: RunRow) -> str | None:
        agent = self.agents.get(run.agent)
        if run.cancel_requested_at is not None:
            return "cancel"
        if run.suspend_requested_at is not None:
            return "suspend"
        if self.suspended:
            return "suspend_tenant"
        return "suspend_agent" if agent is not None and agent.suspended else None

    def run_load(self, *arguments: Any) -> list[Row]:
        """Arguments: tenant, runs, epochs."""
        if self.broken != "ghost" and any(each.run_id in arguments[1] for each in self.reservations.values()):
            self.usage_settle((), dict(zip(*arguments[1:3], strict=True)))
        return [self._load(self.runs[run]) for run, epoch in zip(*arguments[1:3], strict=True) if self.owned(run, epoch)]

    def _load(self, run: RunRow) -> Row:
        has_past = run.queued_seq > 1 or self.sessions[run.session_id].forked_from is not None
        return {
            "run": run.id,
            "agent": run.agent,
            "revision": run.revision,
            "input": run.input,
            "takeovers": run.takeovers,
            "attempt": run.attempt,
            "depth": run.depth,
            "wish": self._wish(run),
            "active": run.active,
            "world": 1,
            "history": self.run_history(run) if has_past else None,
            "steps": self.run_steps(run) if run.epoch > 1 else None,
            "started_by": run.started_by,
            "metered": self.metered,
        }

    def run_history(self, run: RunRow) -> str:
        session, before, turns = self.sessions[run.session_id], run.queued_seq, list[str]()
        while True:
            said = [each for each in session.runs if each.queued_seq < before and not each.rolled_back]
            turns[:0] = [f"[{each.input},{each.output or 'null'}]" for each in said if each.state == "completed" or each.interrupted]
            if session.forked_from is None:
                return f"[{','.join(turns[-50:])}]"
            session, before = self.sessions[session.forked_from], session.forked_seq or 0

    def run_steps(self, run: RunRow) -> str:
        steps = [f'{{"type":"{e.type}","step":"{e.step}","data":{e.data}}}' for e in run.events if e.step is not None]
        return f"[{','.join(steps)}]"

    def run_write(self, tenant: UUID, writes: str, *values: Sequence[Any]) -> list[Row]:
        """`values`: digests, sizes, bodies."""
        self.values_put(tenant, *values)
        asked = ASKED.decode(writes)
        done = [each for each in asked if self._written(each)]
        for each in done:
            for wait in each.waits:
                self.wait_begin(self.runs[each.run], msgspec.json.decode(wait))
        for each in sorted(done, key=lambda each: each.session):
            if each.state is not None and self.runs[each.run].state != "running":
                self._let_go(self.runs[each.run])
        self.usage_written([spend for each in done for spend in each.spends], [(each.run, each.epoch) for each in done])
        rows = [(self.runs[each.run], each) for each in asked if each.run in self.runs]
        return [
            {"run": run.id, "seq": self.sessions[run.session_id].last_seq, "state": run.state, "metered": self.metered}
            for run, each in rows
            if self.broken == "nofence" or (run.epoch == each.epoch and (run.writes == each.number or self.broken == "doublewrite"))
        ]

    def values_put(self, tenant: Any, digests: Sequence[bytes], sizes: Sequence[int], bodies: Sequence[str | None]) -> list[bytes]:
        self.values |= dict(zip(digests, bodies, strict=True))
        return []

    def _written(self, asked: Asked) -> bool:
        """Whether the write is made; what follows from it comes later, when all of its batch are."""
        run = self.runs.get(asked.run)
        if run is None or run.session_id != asked.session or run.state != "running":
            self.seen["a write to a run that nobody drives"] += 1
            return False
        self._see_write(run, asked)
        if run.epoch != asked.epoch and self.broken != "nofence":
            return False
        if run.writes != asked.number - 1 and self.broken not in ("doublewrite", "nofence"):
            return False
        run.takeovers, run.writes, run.output, run.error = 0, asked.number, asked.output, asked.error
        run.input_tokens, run.output_tokens = run.input_tokens + asked.input_tokens, run.output_tokens + asked.output_tokens
        if asked.state is not None:
            stays = asked.state == "waiting" and run.woken and self.broken != "lostwake"
            self.seen["a run was woken before it waited"] += stays
            run.state = "running" if stays else asked.state
            run.woken = run.woken and asked.state != "waiting"
            run.active += self.now() - run.claimed_at
            run.claimed_at = self.now()
        if run.state in FINAL:
            run.finished_at = self.now()
            session = self.sessions[run.session_id]
            session.active_run = None if session.newest_run == run.queued_seq else session.active_run
        self.epoch = asked.epoch
        for entry in asked.entries:
            self.log(run, entry.type, entry.step, entry.data)
        self.epoch = 0
        return True

    def _see_write(self, run: RunRow, asked: Asked) -> None:
        self.seen["a fenced write"] += run.epoch != asked.epoch
        self.seen["a write comes again"] += run.epoch == asked.epoch and run.writes == asked.number
        for entry in asked.entries:
            self.seen[entry.type] += 1

    def _let_go(self, run: RunRow) -> None:
        """What follows when a worker has no use for a run any more."""
        if run.state in FINAL:
            self.run_ended(run)
        elif run.cancel_requested_at is not None:
            self.seen["a run is canceled when it begins to wait"] += 1
            self.run_end(run, "canceled", None)
        elif run.suspend_requested_at is not None and run.state == "waiting":
            self.seen["a run is held when it begins to wait"] += 1
            self.run_park(run, "run")
        else:
            self.slot_leave(run)
