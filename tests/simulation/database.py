"""A model of the engine's database: each SQL function is a method of the same name, with the same arguments and rows.

Everything of one tenant, in memory, each verb at once. test_conformance.py holds it against the real functions. `broken` leaves out
one rule on purpose, for a test that wants to see that it is missed: nofence, lostwake or doublewrite.
"""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from simulation.rows import FINAL, RunRow, SessionRow, WaitRow
from simulation.tables import TENANT, Row, decoded, encoded
from simulation.waits import Waits

HELD = ("queued", "waiting", "suspended", "needs_review")


class ModelDatabase(Waits):
    """One tenant's rows and the verbs over them."""

    # Accepting.

    def run_start(self, *arguments: Any) -> list[Row]:
        """Arguments: tenant, principal, route, key, digest, region, new, input. Keys are not modelled."""
        new, text = json.loads(arguments[6]), arguments[7]
        given = UUID(new["session_id"]) if new.get("session_id") else None
        session = self.sessions.get(given) if given else None
        name = new.get("agent") or (session.agent if session else None)
        if given and session is None:
            return [{"outcome": "no_session", "answer": None}]
        if session is not None and session.agent != name:
            return [{"outcome": "other_agent", "answer": encoded(session.agent)}]
        agent = self.agents.get(name or "")
        if agent is None:
            return [{"outcome": "no_agent", "answer": None}]
        if agent.suspended:
            return [{"outcome": "agent_suspended", "answer": None}]
        if session is not None and session.active_run is not None and agent.concurrency != "Enqueue":
            if agent.concurrency == "Reject":
                return [{"outcome": "session_busy", "answer": encoded(session.active_run)}]
            self._interrupt(session, rollback=agent.concurrency == "Rollback")
        timed = new.get("start_at") is not None and float(new["start_at"]) > self.now()
        gate = "time" if timed else "session" if session and session.active_run else "agent" if agent.bound is not None else None
        if session is None:
            session = SessionRow(UUID(new["new_session_id"]), agent.name, events=[], runs=[])
            self.sessions[session.id] = session
        run = RunRow(UUID(new["id"]), session.id, session.last_seq + 1, agent.name, agent.revision, text, gate=gate, pool=agent.pool)
        run.priority, run.depth = new.get("priority", 0), new.get("depth", 0)
        run.parent_run, run.parent_step = UUID(new["parent_run"]) if new.get("parent_run") else None, new.get("parent_step")
        session.newest_run = run.queued_seq
        session.active_run = session.active_run or run.id
        session.runs.append(run.id)
        self.runs[run.id] = run
        self.log(run, "run.queued", None, f'{{"input":{text}}}')
        if gate == "time":
            self.waits[run.id, ""] = WaitRow(run.id, "", "start", None, float(new["start_at"]))
        elif gate == "agent":
            self.slots_fill(agent.name)
        return [{"outcome": "accepted", "answer": self.run_json(run)}]

    def _interrupt(self, session: SessionRow, *, rollback: bool) -> None:
        active = self.runs[session.active_run] if session.active_run else None
        for run in reversed([self.runs[each] for each in session.runs]):
            if active and run.queued_seq >= active.queued_seq and run.state not in FINAL:
                run.interrupted, run.rolled_back = not rollback, rollback
                self.run_cancel(None, run.id)

    # Driving.

    def run_claim(self, *arguments: Any) -> list[Row]:
        """Arguments: worker, limit, lease, pool, turn, credit. One tenant: whose turn it is is modelled in fairness.py."""
        limit, lease, now = arguments[1], arguments[2].total_seconds(), self.now()
        lost = [run for run in self.runs.values() if run.state == "running" and run.lease_until < now and run.pool == arguments[3]]
        lost = sorted(lost, key=lambda run: run.lease_until)[:limit]
        for run in lost:
            run.active += min(run.lease_until, now) - run.claimed_at
            run.takeovers += 1
        running = sum(run.state == "running" for run in self.runs.values())
        room = limit - len(lost)
        if self.concurrent_runs is not None:
            room = min(room, max(0, self.concurrent_runs - running))
        ready = [run for run in self.runs.values() if run.state == "queued" and run.gate is None and run.pool == arguments[3]]
        taken = [*lost, *sorted(ready, key=lambda run: (-run.priority, run.id))[:room]]
        for run in taken:
            run.state, run.epoch, run.writes, run.claimed_at, run.lease_until = "running", run.epoch + 1, 0, now, now + lease
        rows = [{"tenant_id": TENANT, "id": run.id, "session_id": run.session, "epoch": run.epoch} for run in taken]
        return [*rows, {"id": None, "turn": arguments[4], "credit": 0}]

    def run_renew(self, *arguments: Any) -> list[Row]:
        """Arguments: tenants, runs, epochs, lease."""
        held = [run for run, epoch in zip(*arguments[1:3], strict=True) if self._owned(run, epoch)]
        for run in held:
            self.runs[run].lease_until = self.now() + arguments[3].total_seconds()
        return [{"id": run, "wish": self._wish(self.runs[run])} for run in held]

    def run_release(self, *arguments: Any) -> list[Row]:
        """Arguments: tenants, runs, epochs."""
        held = [self.runs[run] for run, epoch in zip(*arguments[1:3], strict=True) if self._owned(run, epoch)]
        for run in held:
            run.lease_until, run.takeovers = self.now(), max(run.takeovers - 1, -1)
        return [{"run_release": len(held)}]

    def _owned(self, run: UUID, epoch: int) -> bool:
        found = self.runs.get(run)
        return found is not None and found.epoch == epoch and found.state == "running"

    def _wish(self, run: RunRow) -> str | None:
        return "cancel" if run.cancel_requested else "suspend" if run.suspend_requested else None

    def run_load(self, *arguments: Any) -> list[Row]:
        """Arguments: tenant, runs, epochs."""
        return [self._load(self.runs[run]) for run, epoch in zip(*arguments[1:3], strict=True) if self._owned(run, epoch)]

    def _load(self, run: RunRow) -> Row:
        agent = self.agents.get(run.agent)
        return {
            "run": run.id,
            "agent": run.agent,
            "revision": run.revision,
            "input": run.input,
            "takeovers": run.takeovers,
            "attempt": run.attempt,
            "depth": run.depth,
            "active": run.active,
            "world": 1,
            "wish": self._wish(run) or ("suspend_agent" if agent is not None and agent.suspended else None),
            "history": self.run_history(run) if run.queued_seq > 1 else None,
            "steps": self.run_steps(run) if run.epoch > 1 else None,
        }

    def run_history(self, run: RunRow) -> str:
        before = [self.runs[each] for each in self.sessions[run.session].runs]
        said = [each for each in before if each.queued_seq < run.queued_seq and not each.rolled_back]
        turns = [f"[{each.input},{each.output or 'null'}]" for each in said if each.state == "completed" or each.interrupted]
        return f"[{','.join(turns)}]"

    def run_steps(self, run: RunRow) -> str:
        steps = [f'{{"type":"{e.type}","step":"{e.step}","data":{e.data}}}' for e in self.events(run) if e.step is not None]
        return f"[{','.join(steps)}]"

    def run_write(self, *arguments: Any) -> list[Row]:
        """Arguments as in SQL."""
        self.values_put(arguments[0], *arguments[16:19])
        sessions, runs, epochs, numbers, tokens_in, tokens_out, states, outputs, errors = arguments[1:10]
        of, types, steps, data, wait_of, waits = arguments[10:16]
        done: list[int] = []
        for n, id_ in enumerate(runs):
            run = self.runs.get(id_)
            if run is None or run.session != sessions[n] or not self._writable(run, epochs[n], numbers[n]):
                continue
            done.append(n)
            self.epoch = epochs[n]
            self._change(run, number=numbers[n], tokens=(tokens_in[n], tokens_out[n]), end=(states[n], outputs[n], errors[n]))
            for m, owner in enumerate(of):
                if owner == n + 1:
                    self.log(run, types[m], steps[m], data[m])
            self.epoch = 0
        for owner, wait in zip(wait_of, waits, strict=True):
            if owner - 1 in done:
                self.wait_begin(self.runs[runs[owner - 1]], json.loads(wait))
        for n in sorted(done, key=lambda n: sessions[n]):
            run = self.runs[runs[n]]
            if states[n] is not None and run.state in FINAL:
                self.run_ended(run)
            elif states[n] is not None and run.state != "running":
                self.slot_leave(run)
        answers = [(self.runs[run], epoch, number) for run, epoch, number in zip(runs, epochs, numbers, strict=True) if run in self.runs]
        return [
            {"run": run.id, "seq": self.sessions[run.session].last_seq, "state": run.state}
            for run, epoch, number in answers
            if self.broken == "nofence" or (run.epoch == epoch and (run.writes == number or self.broken == "doublewrite"))
        ]

    def values_put(self, tenant: Any, digests: Sequence[bytes], sizes: Sequence[int], bodies: Sequence[str | None]) -> list[bytes]:
        self.values |= dict(zip(digests, bodies, strict=True))
        return []

    def _writable(self, run: RunRow, epoch: int, number: int) -> bool:
        fenced = run.epoch != epoch and self.broken != "nofence"
        repeated = run.writes != number - 1 and self.broken not in ("doublewrite", "nofence")
        return run.state == "running" and not fenced and not repeated

    def _change(self, run: RunRow, *, number: int, tokens: tuple[int, int], end: tuple[str | None, str | None, str | None]) -> None:
        state, run.output, run.error = end
        run.takeovers, run.writes = 0, number
        run.input_tokens, run.output_tokens = run.input_tokens + tokens[0], run.output_tokens + tokens[1]
        if state is None:
            return
        woken = run.woken and self.broken != "lostwake"
        run.state = "running" if state == "waiting" and woken else state
        run.woken = run.woken and state != "waiting"
        run.active += self.now() - run.claimed_at
        run.claimed_at = self.now()
        session = self.sessions[run.session]
        if state in FINAL and session.newest_run == run.queued_seq:
            session.active_run = None

    # Control.

    def run_end(self, run: RunRow, state: str, error: str | None) -> None:
        run.state, run.gate, run.error, run.suspended_by = state, None, error, None
        self.log(run, f"run.{state}", None, "{}" if error is None else f'{{"error":{error}}}')
        self.run_ended(run)

    def run_cancel(self, tenant: Any, run_id: UUID) -> str | None:
        run = self.runs.get(run_id)
        if run is None:
            return None
        if run.state in HELD:
            self.run_end(run, "canceled", None)
        elif run.state == "running" and not run.cancel_requested:
            run.cancel_requested = True
            self.log(run, "run.cancel_requested", None, "{}")
        return self.run_json(run)

    def run_suspend(self, tenant: Any, run_id: UUID) -> str | None:
        run = self.runs.get(run_id)
        if run is None:
            return None
        if run.state == "waiting" or (run.state == "queued" and run.gate != "session"):
            run.state, run.gate, run.suspended_by = "suspended", None, "run"
            self.slot_leave(run)
            self.log(run, "run.suspended", None, '{"by":"run"}')
        elif run.state == "running":
            run.suspend_requested = True
        return self.run_json(run)

    def run_hold(self, tenant: Any, run_id: UUID, epoch: int, by: str) -> bool:
        if not self._owned(run_id, epoch):
            return False
        run = self.runs[run_id]
        run.state, run.suspended_by, run.suspend_requested = "suspended", by, False
        run.active += self.now() - run.claimed_at
        run.claimed_at = self.now()
        self.slot_leave(run)
        self.log(run, "run.suspended", None, encoded({"by": by}))
        return True

    def run_resume(self, *arguments: Any) -> list[Row]:
        """Arguments: tenant, run, as, answer, by."""
        _, run_id, word, answer, by = arguments
        run = self.runs.get(run_id)
        if run is None:
            return [{"outcome": "no_run", "answer": None}]
        outcome = self._resumable(run, word)
        if outcome is not None:
            return [{"outcome": outcome, "answer": None}]
        if run.state == "suspended":
            self.log(run, "run.continued", None, encoded({"by": by}))
            self.run_ready(run)
        else:
            self._reviewed(run, word, answer, by)
        return [{"outcome": "resumed", "answer": self.run_json(run)}]

    def _resumable(self, run: RunRow, word: str | None) -> str | None:
        agent = self.agents.get(run.agent)
        match run.state:
            case "suspended":
                return "as_unasked" if word is not None else "agent_suspended" if agent and agent.suspended else None
            case "needs_review":
                return "as_missing" if word is None else None
            case _:
                return run.state

    def _reviewed(self, run: RunRow, word: str, answer: str, by: str) -> None:
        call = json.loads([event for event in self.events(run) if event.type == "run.needs_review"][-1].data)
        step = call["step"]
        self.log(run, "review.decided", step, encoded({"decision": word, "by": by, "attempt": call["attempt"]}))
        if word == "fail":
            detail = f"{by} decided that the run fails at step {step}, {call['name']}"
            self.run_end(run, "failed", encoded({"code": "review_failed", "detail": detail, "hint": ""}))
            return
        if word == "done":
            done = {"name": call["name"], "arguments": call["arguments"], "content": decoded(answer)}
            self.log(run, "tool.completed", step, encoded(done | {"is_error": False, "invalid_arguments": False}))
        self.run_ready(run)
