"""The verbs of waiting, in the model, as in definitions/waits.sql: what a run begins to wait for, and what comes of it."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from simulation.money import Money
from simulation.rows import FINAL, ApprovalRow, LetterRow, RunRow, WaitRow
from simulation.tables import TENANT, Row, decoded, encoded, named


class Waits(Money):
    """The verbs of waiting."""

    def wait_begin(self, run: RunRow, wait: Row) -> None:
        kind, key, step = wait["kind"], wait.get("key"), wait["step"]
        seconds: float | None = wait.get("seconds")
        data: Row = wait.get("data") or {}
        look_at = None if seconds is None else self.now() + seconds
        if kind == "publish":
            self.send(named(f"{run.id}.{step}"), "event.published", key, {"name": key, "data": data["data"]})
            return
        if kind == "retry":
            for old in [each for each in self.waits_of(run.id) if each.kind == "retry"]:
                del self.waits[run.id, old.step]
        if (run.id, step) in self.waits:
            raise LookupError(f"duplicate key: run {run.id} waits at step {step} already")
        self.waits[run.id, step] = WaitRow(run.id, step, kind, key, look_at)
        if kind == "approval":
            self.approvals[UUID(key)] = ApprovalRow(UUID(key), run.id, step, data["kind"], encoded(data["subject"]), look_at)
        elif kind == "child":
            call: Row = {"id": key, "agent": data["agent"], "input": data["input"], "parent_run": run.id, "parent_step": step}
            user = decoded(run.started_by).get("on_behalf_of") if run.started_by else None
            starter = {"name": f"agent:{run.agent}", "kind": "agent", "on_behalf_of": user, "may": data.get("may")}
            call |= {"depth": run.depth + 1, "priority": run.priority, "started_by": starter}
            self.send(UUID(key), "run.call", str(run.id), call)
        elif kind == "event":
            letters = [each for each in self.mailbox if each.session_id == run.session_id and each.name == key]
            if letters:
                letter = min(letters, key=lambda each: each.id)
                self.mailbox.remove(letter)
                self.seen["an event had come before it was waited for"] += 1
                self.wait_resolve(None, run.id, step, "event.received", f'{{"name":{encoded(key)},"data":{letter.data}}}')

    def wait_resolve(self, tenant: Any, run_id: UUID, step: str, type_: str, data: str) -> str:
        run = self.runs.get(run_id)
        if run is None or self.waits.pop((run_id, step), None) is None or run.state in FINAL:
            self.seen[f"{type_} comes for nobody"] += 1
            return "gone"
        self.log(run, type_, step, data)
        self.seen[f"{type_} comes to a run that is {run.state}"] += 1
        if run.state == "waiting" and all(wait.kind != "retry" for wait in self.waits_of(run_id)):
            self.run_ready(run)
            return "queued"
        run.woken = True
        return run.state

    def run_returned(self, tenant: Any, run_id: UUID, step: str, data: str) -> str:
        return self.wait_resolve(tenant, run_id, step, "run.returned", data)

    def waits_due(self, limit: int, again: timedelta) -> list[Row]:
        now = self.now()
        due = [wait for wait in self.waits.values() if wait.look_at is not None and wait.look_at <= now]
        due = sorted(due, key=lambda wait: wait.look_at or 0.0)[:limit]
        for wait in due:
            wait.look_at = now + again.total_seconds()
        later = [wait.look_at for wait in self.waits.values() if wait.look_at is not None]
        last: Row = {"tenant_id": None, "run_id": None, "step": None, "next": min(later) - now if later else None}
        return [*({"tenant_id": TENANT, "run_id": wait.run_id, "step": wait.step, "next": None} for wait in due), last]

    def wait_expire(self, tenant: Any, run_id: UUID, step: str) -> str:
        wait, run = self.waits.get((run_id, step)), self.runs.get(run_id)
        if wait is None or run is None or wait.kind == "child":
            return "gone"
        if wait.kind == "timer":
            return self.wait_resolve(tenant, run_id, step, "timer.fired", "{}")
        if wait.kind == "event":
            return self.wait_resolve(tenant, run_id, step, "event.received", encoded({"name": wait.key, "expired": True}))
        if wait.kind == "approval":
            return self.approval_settle(tenant, UUID(wait.key), "expired", None, None, None)
        if wait.kind == "budget":
            del self.waits[run_id, step]
            self.seen[f"the time of a budget comes to a run that is {run.state}"] += 1
            if run.state != "suspended" or run.suspended_by != "budget":
                return run.state
            self.log(run, "run.continued", None, encoded({"by": "budget"}))
            self.run_continue(run)
            return "queued"
        if wait.kind == "retry" and run.state == "running" and self.broken != "retrylost":
            self.seen["the time of a retry comes before its worker lets go"] += 1
            return "running"
        del self.waits[run_id, step]
        self.seen[f"the time of a {wait.kind} comes to a run that is {run.state}"] += 1
        if wait.kind == "retry":
            run.attempt += 1
        if run.state == "waiting" or (run.state == "queued" and run.gate == "time"):
            self.run_ready(run)
            return "queued"
        return run.state

    def approval_settle(self, *arguments: Any) -> str:
        """Arguments: tenant, id, state, by, comment, answer."""
        _, id_, state, by, comment, answer = arguments
        found = self.approvals.get(id_)
        if found is None:
            return "gone"
        in_time = state == "expired" or found.expires_at is None or found.expires_at > self.now()
        if found.state != "pending" or not in_time:
            self.seen["an approval is decided again, or too late"] += 1
            return f"conflict.{'expired' if found.state == 'pending' else found.state}"
        self.seen[f"a {found.kind} is {state}"] += 1
        found.state, found.decided_by, found.comment, found.answer = state, by, comment, answer
        data = {"approval_id": id_, "decision": state, "by": by, "comment": comment, "answer": decoded(answer)}
        return self.wait_resolve(None, found.run_id, found.step, "approval.decided", encoded(data))

    def event_send(self, *arguments: Any) -> list[Row]:
        """Arguments: tenant, session, id, name, data."""
        _, session_id, id_, name, data = arguments
        session = self.sessions.get(session_id)
        if session is None:
            return [{"outcome": "no_session", "run": None}]
        wait = next((w for w in self.waits_of(session.active_run) if w.kind == "event" and w.key == name), None)
        if wait is not None:
            text = f'{{"name":{encoded(name)},"data":{data}}}'
            return [{"outcome": self.wait_resolve(None, wait.run_id, wait.step, "event.received", text), "run": wait.run_id}]
        self.seen["an event is kept"] += 1
        self.mailbox.append(LetterRow(session_id, id_, name, data))
        return [{"outcome": "kept", "run": None}]

    def event_publish(self, tenant: Any, name: str, data: str, within: list[str] | None = None) -> list[Row]:
        found = [wait for wait in self.waits.values() if wait.kind == "event" and wait.key == name]
        found = [wait for wait in found if within is None or self.sessions[self.runs[wait.run_id].session_id].namespace in within]
        text = f'{{"name":{encoded(name)},"data":{data}}}'
        ordered = sorted(found, key=lambda wait: (self.runs[wait.run_id].session_id, wait.step))
        return [{"outcome": self.wait_resolve(None, w.run_id, w.step, "event.received", text), "run": w.run_id} for w in ordered]

    def run_continue(self, run: RunRow) -> None:
        kind = next((wait.kind for wait in self.waits_of(run.id) if wait.kind in ("start", "retry")), None)
        if kind is None:
            self.run_ready(run)
            return
        run.suspended_by = None
        run.state, run.gate = ("queued", "time") if kind == "start" else ("waiting", None)
        self.slot_leave(run)
