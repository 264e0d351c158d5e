"""What people do in a world, and what carries messages: runs are started, held, canceled, answered and decided, agents are held.

All of it is drawn, at every tick; when the storm is over people only help.
"""

from random import Random
from typing import Any
from uuid import UUID

from hansa.bus.subjects import runs_ready, runs_told
from hansa.messages.model import Message
from hansa.runs.consumer import receivers
from simulation.database import ModelDatabase
from simulation.programs import MANIFESTS, Author
from simulation.rows import FINAL, AgentRow, RunRow
from simulation.tables import TENANT, encoded
from simulation.wire import Doorbells, Line, Weather, instant

REGION = "local"
POLICIES = ("Enqueue", "Enqueue", "Enqueue", "Interrupt", "Rollback", "Reject")
LIMITS, ENOUGH = ("suspend", "suspend", "reject"), 10**9
MEDDLING = ((0.03, ["cancel"]), (0.07, ["suspend"]), (0.09, ["suspend", "resume"]), (0.11, ["suspend", "cancel"]), (0.12, ["resume"]))
"""What is said of a run that nobody would have to touch; the draw is below that number."""


class People:
    """They reach the database by a line that never fails; what fails is what workers do."""

    def __init__(self, model: ModelDatabase, weather: Weather, bells: Doorbells) -> None:
        loop = weather.loop
        self.left = set[UUID]()
        """Runs that a person has left to their review."""
        self._model = model
        self._weather = weather
        self._bells = bells
        self._random = Random(loop.random.getrandbits(64))
        self._author = Author(self._random)
        self._line = Line(model)
        self._received = set[UUID]()
        self._receivers = receivers(REGION, weather.new_id)
        self._starts = sorted(self._random.uniform(0, 3.0) for _ in range(self._random.choice((1, 1, 1, 2))))
        if self._random.random() < 0.5:
            self._author.spends = True
            self._set_budget(self._random.choice((4, 4, 6, 8, 12)), self._random.choice(LIMITS), charges=self._random.random() < 0.8)
        for name in MANIFESTS:
            bound = self._random.choice((None, None, 1))
            model.agents[name] = AgentRow(name, concurrency=self._random.choice(POLICIES), bound=bound)

    async def tick(self) -> None:
        """Do what is to be done now."""
        while self._starts and self._starts[0] <= self._weather.loop.time():
            self._starts.pop(0)
            self._accept()
        await self._carry()
        for run in list(self._model.runs.values()):
            if run.state not in FINAL and run.id not in self.left:
                self._look_after(run)
                self._meddle(run)
        self._hold_agents()
        self._hold_tenant()
        self._pay()

    def rest(self) -> bool:
        """Whether nothing is left to be done."""
        over = all(run.state in FINAL or run.id in self.left for run in self._model.runs.values())
        return over and not self._starts and not self._model.outbox

    def _accept(self) -> None:
        agent = self._random.choice(("plain", "plain", "careful", "stubborn"))
        sessions = [session for session in self._model.sessions.values() if session.agent == agent]
        new: dict[str, Any] = {"id": self._weather.new_id(), "new_session_id": self._weather.new_id(), "agent": agent}
        new["priority"] = self._random.choice((0, 0, 5))
        if sessions and self._random.random() < 0.7:
            new["session_id"] = self._random.choice(sessions).id
        elif self._random.random() < 0.1:
            new["start_at"] = instant(self._weather.loop.time() + 2.0)
        self._model.run_start(TENANT, "p", None, None, None, REGION, encoded(new), encoded(self._author.program(agent)))
        self._ring("queued")

    def _ring(self, outcome: str, run: UUID | None = None, word: str = "look") -> None:
        if outcome == "queued":
            self._bells.ring(runs_ready(REGION), b"")
        elif outcome == "running":
            self._bells.ring(runs_told(REGION), f"{word} {run}".encode())

    def _meddle(self, run: RunRow) -> None:
        draw = self._random.random() if self._weather.stormy else 1.0
        for below, words in MEDDLING:
            if draw < below:
                for word in words:
                    self._say(run, word)
                return

    def _say(self, run: RunRow, word: str) -> None:
        if word == "cancel":
            self._model.run_cancel(TENANT, run.id)
        elif word == "suspend":
            self._model.run_suspend(TENANT, run.id)
        else:
            self._model.run_resume(TENANT, run.id, None, "null", "p")
        if word != "resume":
            self._ring("running", run.id, word)

    def _hold_agents(self) -> None:
        for agent in list(self._model.agents.values()):
            wanted = self._weather.stormy and self._random.random() < (0.6 if agent.suspended else 0.01)
            if wanted != agent.suspended:
                self._model.agent_changed(TENANT, agent.name, 1, wanted, agent.concurrency, agent.pool, agent.bound)
                self._ring("queued")

    def _hold_tenant(self) -> None:
        wanted = self._weather.stormy and self._random.random() < (0.6 if self._model.suspended else 0.006)
        if wanted != self._model.suspended:
            self._model.tenant_changed(TENANT, wanted)
            self._ring("queued")

    def _pay(self) -> None:
        """Budgets are only ever raised, so that what was spent must fit in what they are; in the end everybody has enough."""
        budget = self._model.budget
        if budget is None or budget.amount is None or budget.amount == ENOUGH:
            return
        if not self._weather.stormy:
            self._set_budget(ENOUGH, budget.on_limit, charges=budget.charges_lost)
        elif self._random.random() < 0.1:
            self._set_budget(budget.amount + 4, self._random.choice(LIMITS), charges=budget.charges_lost)

    def _set_budget(self, amount: int, on_limit: str, *, charges: bool) -> None:
        self._model.budget_set(TENANT, amount, "EUR", "month", on_limit, charges, 80, None)

    def _look_after(self, run: RunRow) -> None:
        """What a person does about a run that waits for one."""
        if self._random.random() < 0.5:
            return
        if run.state == "suspended":
            self._model.run_resume(TENANT, run.id, None, "null", "p")
            self._ring("queued")
        elif run.state == "needs_review":
            word = self._random.choice(("done", "retry", "fail", "later"))
            if word == "later" and run.parent_run is None and len(self._model.runs) == 1:
                self.left.add(run.id)
                return
            self._model.run_resume(TENANT, run.id, "fail" if word == "later" else word, '"sent"', "p")
            self._ring("queued")
        for wait in self._model.waits_of(run.id):
            if wait.kind == "approval" and wait.key is not None:
                asked = self._model.approvals[UUID(wait.key)]
                if asked.id.int % 4 == 0 and asked.expires_at is not None and asked.expires_at < self._weather.loop.time() + 30:
                    continue  # nobody has time for it
                decision = "answered" if asked.kind == "question" else self._random.choice(("approved", "approved", "denied"))
                for _ in range(self._random.choice((1, 1, 1, 2))):
                    self._ring(self._model.approval_settle(TENANT, asked.id, decision, "p", None, '{"go":true}'), run.id)
            elif wait.kind == "event" and (wait.look_at is None or self._random.random() < 0.3):
                for _ in range(self._random.choice((1, 1, 1, 2))):  # the second is kept, for who waits next
                    (answer,) = self._model.event_send(TENANT, run.session_id, self._weather.new_id(), wait.key, '{"n":1}')
                    self._ring(answer["outcome"], answer["run"])

    async def _carry(self) -> None:
        """Messages go to the real receivers, in the order of their keys, each once: outbox and inbox have tests of their own."""
        held = set[str | None]()
        for message in list(self._model.outbox.values()):
            if message.key in held or self._weather.bad(0.4):
                held.add(message.key)
                continue
            del self._model.outbox[message.id]
            if message.id in self._received:
                continue
            self._received.add(message.id)
            self._model.seen[message.kind] += 1
            # The receiver wants asyncpg's connection, and asks it for no more than a line has.
            connection: Any = self._line
            sent = Message(TENANT, message.id, message.kind, message.key, message.payload)
            for ring in await self._receivers[message.kind](connection, sent):
                self._bells.ring(ring.subject, ring.payload)
