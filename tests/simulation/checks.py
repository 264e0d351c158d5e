"""Checks of revisions, in the model, as in definitions/rollout.sql."""

from typing import Any
from uuid import UUID

from simulation.control import Control
from simulation.rows import AgentRow, RolloutRow, RunRow, SessionRow, WaitRow
from simulation.tables import Row, by

KNOWN = ("checking", "refused", "served")


class Checks(Control):
    """The verbs of revisions that ask to be checked."""

    def unserved(self, agent: AgentRow, session: SessionRow | None, revision: int) -> Row | None:
        """Why no run begins on a revision. All that are named are there."""
        if revision == 0:
            self.seen["a run is refused before any revision serves"] += 1
            return {"outcome": "not_served", "answer": None}
        if revision in (agent.revision, session.revision if session else 0):
            return None
        known = self.rollouts.get((agent.name, revision))
        if known is None:
            return {"outcome": "no_revision", "answer": None}
        if known.state == "served":
            return None
        self.seen["a run is refused on a revision that does not serve"] += 1
        return {"outcome": "not_served", "answer": None}

    def rollout_begin(self, *arguments: Any) -> str:
        """Arguments: tenant, agent, revision, digest, seconds, suspended, concurrency, pool, bound, run."""
        tenant, name, revision, digest, seconds, suspended, concurrency, pool, bound, run = arguments
        agent, known = self.agents.get(name), self.rollouts.get((name, revision))
        if agent is not None and known is not None and known.state in KNOWN:
            return known.state
        self.rollout_stop(name)
        passed = any((each.agent, each.digest, each.state) == (name, digest, "served") for each in self.rollouts.values())
        state, reason = ("served", "PassedBefore") if passed else ("checking", "Checking")
        smoke = None if passed else run
        if known is None:
            self.rollouts[name, revision] = RolloutRow(name, revision, digest, state, reason, smoke, seconds, concurrency, pool, bound)
        else:
            known.state, known.reason, known.smoke_run, known.seconds = state, reason, smoke, seconds
        self.seen[f"a revision is applied that asks for a check: {reason}"] += 1
        serving = revision if passed else 0 if agent is None else agent.revision
        kept = None if passed or serving == 0 else agent
        settings = (concurrency, pool, bound) if kept is None else (kept.concurrency, kept.pool, kept.bound)
        self.agent_changed(tenant, name, serving, suspended, *settings)
        if not passed:
            self.agents[name].checking = True
            self.send(run, "rollout.begin", str(run), {"agent": name, "revision": revision})
        return state

    def rollout_start(self, *arguments: Any) -> bool:
        """Arguments: tenant, agent, revision, run, session, input, by."""
        _, name, revision, run_id, session, text, starter = arguments
        found = self.rollouts.get((name, revision))
        if found is None or (found.smoke_run, found.state) != (run_id, "checking") or run_id in self.runs:
            self.seen["a check is begun that nobody wants any more"] += 1
            return False
        self.sessions[session] = SessionRow(
            session, name, revision=revision, smoke=True, namespace=self.agents[name].namespace if name in self.agents else None
        )
        run = RunRow(run_id, session, 1, name, revision, text, pool=found.pool, priority=100, started_by=starter)
        self.add_run(run)
        self.log(run, "run.queued", None, f'{{"input":{text}{by(starter)}}}')
        found.deadline = self.now() + found.seconds
        self.waits[run_id, "rollout"] = WaitRow(run_id, "rollout", "rollout", None, self.now() + min(found.seconds, 60))
        self.run_ready(run)
        return True

    def rollout_again(self, tenant: Any, name: str, run: UUID) -> str | None:
        if name not in self.agents:
            return None
        newer = [each for each in self.rollouts.values() if each.agent == name and each.revision > self.agents[name].revision]
        found = max(newer, key=lambda each: each.revision, default=None)
        lost = found is not None and found.state == "checking" and found.smoke_run not in self.runs
        if found is None or (found.state != "refused" and not lost):
            return None if found is None else found.state
        if found.state == "refused" and self.agents[name].checking:
            return "checking"
        found.state, found.reason, found.smoke_run = "checking", "Checking", run
        self.agents[name].checking = True
        self.send(run, "rollout.begin", str(run), {"agent": name, "revision": found.revision})
        return "begun"

    def wait_expire(self, tenant: Any, run_id: UUID, step: str) -> str:
        wait = self.waits.get((run_id, step))
        if wait is not None and wait.kind == "rollout":
            return self.rollout_look(self.runs[run_id])
        return super().wait_expire(tenant, run_id, step)

    def rollout_look(self, run: RunRow) -> str:
        found, wait = self.rollout_of(run), self.waits[run.id, "rollout"]
        if found is not None and run.state in ("queued", "suspended"):
            self.seen["a check that waits has its time again"] += 1
            found.deadline = self.now() + found.seconds
            wait.look_at = self.now() + min(found.seconds, 60)
            return "checking"
        if found is not None and found.deadline is not None and found.deadline > self.now():
            wait.look_at = found.deadline
            return "checking"
        del self.waits[run.id, "rollout"]
        if found is not None:
            self.rollout_decide(found, "refused", "Expired")
        self.run_cancel(None, run.id)
        return "gone"
