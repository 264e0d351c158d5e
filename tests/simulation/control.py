"""What people do with runs, in the model, as in definitions/control.sql: cancel, suspend, resume, decide, fork; and agents that
change, as in definitions/agents.sql."""

from typing import Any
from uuid import UUID

from simulation.rows import FINAL, AgentRow, EventRow, RunRow, SessionRow, WaitRow
from simulation.tables import Row, by, decoded, encoded
from simulation.waits import Waits

HELD = ("queued", "waiting", "suspended", "needs_review")
TAKEN_OVER = frozenset(
    {"model.completed", "tool.completed", "run.returned", "value.recorded", "timer.fired", "event.received", "log"}
)  # fmt: skip
"""What says in a fork that a step has its result."""


class Control(Waits):
    """The verbs of people."""

    def run_end(self, run: RunRow, state: str, error: str | None) -> None:
        run.state, run.gate, run.error, run.suspended_by, run.finished_at = state, None, error, None, self.now()
        self.log(run, f"run.{state}", None, "{}" if error is None else f'{{"error":{error}}}')
        self.run_ended(run)

    def run_cancel(self, tenant: Any, run_id: UUID) -> str | None:
        run = self.runs.get(run_id)
        if run is None:
            return None
        self.seen[f"cancel of a run that is {run.state}"] += 1
        if run.state in HELD:
            self.run_end(run, "canceled", None)
        elif run.state == "running" and run.cancel_requested_at is None:
            run.cancel_requested_at = self.now()
            self.log(run, "run.cancel_requested", None, "{}")
        return self.run_json(run)

    def session_interrupt(self, session: SessionRow, *, rollback: bool) -> None:
        active = self.runs[session.active_run] if session.active_run else None
        for run in [each for each in reversed(session.runs) if active and each.queued_seq >= active.queued_seq and each.state not in FINAL]:
            self.seen[f"a run that is {run.state} is {'rolled back' if rollback else 'interrupted'}"] += 1
            run.interrupted, run.rolled_back = not rollback, rollback
            self.run_cancel(None, run.id)

    def run_park(self, run: RunRow, by: str) -> None:
        run.state, run.gate, run.suspended_by, run.suspend_requested_at = "suspended", None, by, None
        self.slot_leave(run)
        self.log(run, "run.suspended", None, encoded({"by": by}))

    def run_suspend(self, tenant: Any, run_id: UUID) -> str | None:
        run = self.runs.get(run_id)
        if run is None:
            return None
        self.seen[f"suspend of a run that is {run.state}"] += 1
        if run.state == "waiting" or (run.state == "queued" and run.gate != "session"):
            self.run_park(run, "run")
        elif run.state == "suspended":
            run.suspended_by = "run"
        elif run.state in ("running", "queued") and run.suspend_requested_at is None:
            run.suspend_requested_at = self.now()
        return self.run_json(run)

    def run_hold(self, tenant: Any, run_id: UUID, epoch: int) -> bool:
        if not self.owned(run_id, epoch):
            self.seen["a fenced hold"] += 1
            return False
        run = self.runs[run_id]
        run.active += self.now() - run.claimed_at
        run.claimed_at = self.now()
        agent = self.agents.get(run.agent)
        if run.cancel_requested_at is not None:
            self.seen["a run that is to be held is canceled"] += 1
            self.run_end(run, "canceled", None)
        elif run.suspend_requested_at is not None:
            self.seen["a run is held as someone wants"] += 1
            self.run_park(run, "run")
        elif self.suspended:
            self.seen["a run is held with its tenant"] += 1
            self.run_park(run, "tenant")
        elif agent is not None and agent.suspended:
            self.seen["a run is held with its agent"] += 1
            self.run_park(run, "agent")
        else:
            self.seen["a run is let go on, for nobody wants it held any more"] += 1
            self.run_continue(run)
        self.usage_settle((), {run_id: epoch + 1})
        return True

    def budget_hold(self, *arguments: Any) -> bool:
        """Arguments: tenant, run, epoch, version, told."""
        _, run_id, epoch, version, told = arguments
        if not self.owned(run_id, epoch):
            return False
        run = self.runs[run_id]
        if run.cancel_requested_at is not None or run.suspend_requested_at is not None:
            return self.run_hold(None, run_id, epoch)
        run.active += self.now() - run.claimed_at
        run.claimed_at = self.now()
        run.state, run.gate, run.suspended_by = "suspended", None, "budget"
        self.slot_leave(run)
        self.log(run, "run.suspended", None, told)
        self.usage_settle((), {run_id: epoch + 1})
        late = self.budget is not None and self.budget.version != version
        self.seen["a run is held for its budget" if not late else "a budget was changed before a run is held for it"] += 1
        self.waits[run_id, "budget"] = WaitRow(run_id, "budget", "budget", None, self.now() if late else self.now() + 1e6)
        return True

    def run_resume(self, *arguments: Any) -> list[Row]:
        """Arguments: tenant, run, as, answer, by."""
        _, run_id, word, answer, by = arguments
        run = self.runs.get(run_id)
        if run is None:
            return [{"outcome": "no_run", "answer": None}]
        agent = self.agents.get(run.agent)
        if run.state == "suspended" and word is None:
            if self.suspended:
                return [{"outcome": "tenant_suspended", "answer": None}]
            if agent is not None and agent.suspended:
                return [{"outcome": "agent_suspended", "answer": None}]
            self.seen["a suspended run is resumed"] += 1
            self.log(run, "run.continued", None, encoded({"by": by}))
            self.run_continue(run)
        elif run.suspend_requested_at is not None and run.state in ("queued", "running") and word is None:
            self.seen[f"the wish to suspend a run that is {run.state} is withdrawn"] += 1
            run.suspend_requested_at = None
        elif run.state == "suspended":
            return [{"outcome": "as_unasked", "answer": None}]
        elif run.state != "needs_review" or word is None:
            return [{"outcome": "as_missing" if run.state == "needs_review" else run.state, "answer": None}]
        else:
            self._reviewed(run, word, answer, by)
        return [{"outcome": "resumed", "answer": self.run_json(run)}]

    def _reviewed(self, run: RunRow, word: str, answer: str, by: str) -> None:
        self.seen[f"a call in doubt is decided: {word}"] += 1
        call = decoded([event for event in run.events if event.type == "run.needs_review"][-1].data)
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

    def agent_changed(self, *arguments: Any) -> bool:
        """Arguments: tenant, agent, revision, suspended, concurrency, pool, bound."""
        _, name, revision, suspended, concurrency, pool, bound = arguments
        held = sum(run.slot for run in self.runs.values() if run.agent == name)
        held = self.agents[name].held if name in self.agents else held
        self.rollout_stop(name)
        namespace = self.agents[name].namespace if name in self.agents else None
        self.agents[name] = AgentRow(name, revision, suspended, concurrency, pool, bound, held, namespace=namespace)
        self.slots_fill(name)
        stopped = [run for run in self.runs.values() if run.agent == name and (run.state, run.suspended_by) == ("suspended", "agent")]
        if not suspended:
            for run in sorted(stopped, key=lambda run: run.id):
                self.run_continue(run)
        return suspended or bool(stopped)

    def tenant_changed(self, tenant: Any, suspended: bool) -> bool:  # noqa: FBT001 - the arguments of the SQL
        self.suspended = suspended
        stopped = [run for run in self.runs.values() if (run.state, run.suspended_by) == ("suspended", "tenant")]
        if not suspended:
            for run in sorted(stopped, key=lambda run: run.id):
                self.seen["a run goes on with its tenant"] += 1
                self.run_continue(run)
        return suspended or bool(stopped)

    def agent_deleted(self, tenant: Any, name: str) -> None:
        self.rollout_stop(name)
        self.agents.pop(name, None)
        self.slots_fill(name)

    def run_fork(self, *arguments: Any) -> list[Row]:
        """Arguments: tenant, region, run, at, new run, new session, by whom."""
        run_id, at, new_run, new_session = arguments[2:6]
        starter = arguments[6] if len(arguments) > 6 else None
        old = self.runs.get(run_id)
        if old is None:
            return [{"outcome": "no_run", "answer": None}]
        agent = self.agents.get(old.agent)
        if self.suspended:
            return [{"outcome": "tenant_suspended", "answer": encoded(old.agent)}]
        if agent is None or agent.suspended:
            return [{"outcome": "no_agent" if agent is None else "agent_suspended", "answer": encoded(old.agent)}]
        if self.sessions[old.session_id].smoke:
            return [{"outcome": "smoke_session", "answer": encoded(old.agent)}]
        if not old.queued_seq <= at <= old.events[-1].seq:
            return [{"outcome": "at_outside", "answer": encoded([old.queued_seq, old.events[-1].seq])}]
        forked = self.sessions[new_session] = SessionRow(
            new_session, old.agent, forked_from=old.session_id, forked_seq=old.queued_seq, revision=old.revision
        )
        forked.namespace = self.sessions[old.session_id].namespace
        run = RunRow(new_run, new_session, 1, old.agent, old.revision, old.input, pool=agent.pool, priority=old.priority, epoch=1)
        run.started_by = starter
        self.add_run(run)
        before = [event for event in old.events if event.seq <= at]
        done = {event.step for event in before if event.step is not None and _has_result(event)}
        origin = encoded({"run_id": run_id, "seq": at})
        self.log(run, "run.queued", None, f'{{"input":{old.input}{by(starter)},"forked_from":{origin}}}')
        for event in before:
            if event.step in done:
                self.log(run, event.type, event.step, event.data)
        self.run_ready(run)
        return [{"outcome": "accepted", "answer": self.run_json(run)}]


def _has_result(event: EventRow) -> bool:
    return event.type in TAKEN_OVER or (event.type == "approval.decided" and decoded(event.data)["decision"] == "answered")
