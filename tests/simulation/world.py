"""One simulated world: workers over the model database, people, messages, and what befalls them, all drawn from one seed.

Workers are the real ones, from claim to park; what is simulated is what they stand on. `broken` leaves out one rule on purpose: those
of the model database, or nointent.
"""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import msgspec

from hansa.bus.subjects import runs_ready, runs_told
from hansa.messages.model import Message
from hansa.runs.consumer import receivers
from hansa.runs.context import Sources
from hansa.runs.equipment import Equipment
from hansa.runs.journal import Writer
from hansa.runs.log.keeping import Values
from hansa.runs.log.retention import Retention
from hansa.runs.model import Claim, EventType, Write, Written
from hansa.runs.worker import Worker
from hansa.runs.writer import open_writer
from hansa.settings import WorkerSettings
from simulation.database import ModelDatabase
from simulation.loop import Process, VirtualLoop
from simulation.programs import MANIFESTS, Author, Catalog, KnownWorlds, Model
from simulation.programs import Line as Witnessed
from simulation.rows import AgentRow
from simulation.tables import BEGIN, TENANT
from simulation.wire import Doorbells, Line, LinkedBus, LinkedDatabase, Weather

REGION = "local"
LEASE = 5.0
SETTINGS = WorkerSettings(concurrency=4, lease_seconds=LEASE, renew_seconds=1.5, poll_seconds=1.0, grace_seconds=0.5)
PATIENCE = 300.0
"""Virtual seconds after which a world that has not come to rest is stuck."""
TICK = 0.7
RESTING = frozenset({"completed", "failed", "canceled"})


class HastyWriter:
    """The control nointent: says that an intent is written before it is."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._last: dict[UUID, asyncio.Task[Written | None]] = {}

    async def write(self, claim: Claim, write: Write) -> Written | None:
        task = asyncio.create_task(self._after(self._last.get(claim.id), claim, write), name="hasty")
        self._last[claim.id] = task
        if write.end is None and any(entry.type is EventType.TOOL_CALLED for entry in write.entries):
            return Written(0, "running")
        return await task

    async def _after(self, last: "asyncio.Task[Written | None] | None", claim: Claim, write: Write) -> Written | None:
        if last is not None:
            await last
        return await self._writer.write(claim, write)


class World:
    """Use `play`; then look at what is left."""

    def __init__(self, loop: VirtualLoop, witness: list[Witnessed], catalog: Catalog, *, broken: str = "") -> None:
        self.broken = broken
        self.catalog = catalog
        self.loop = loop
        self.witness = witness
        self.random = Random(loop.random.getrandbits(64))
        self.weather = Weather(self.loop)
        self.bells = Doorbells(self.weather)
        self.model = ModelDatabase(self.loop.time, broken=broken)
        self.processes: list[Process] = []
        self.left: set[UUID] = set()
        self.troubles: list[str] = []
        self._stopping: dict[str, asyncio.Event] = {}
        self._idle: dict[UUID, tuple[int, float]] = {}
        self._line = Line(self.model)
        self._receivers = receivers(REGION, self._new_id)
        self._author = Author(self.random)
        self._quiet_since = 0.0
        self._received = 0

    def _new_id(self) -> UUID:
        return UUID(int=self.loop.random.getrandbits(128))

    def _now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.loop.time())

    async def play(self) -> None:
        """From the first run to rest, or until patience is over."""
        for name in MANIFESTS:
            policy = self.random.choice(("Enqueue", "Enqueue", "Enqueue", "Interrupt", "Rollback", "Reject"))
            self.model.agents[name] = AgentRow(name, concurrency=policy, bound=self.random.choice((None, None, 1)))
        self.weather.stormy = self.random.random() < 0.8
        for number in range(self.random.choice((1, 2, 2, 3))):
            self._start_worker(f"w{number}")
        self._plan_faults()
        starts = sorted(self.random.uniform(0, 3.0) for _ in range(self.random.choice((1, 1, 2, 3))))
        while self.loop.time() < PATIENCE:
            while starts and starts[0] <= self.loop.time():
                starts.pop(0)
                self._accept()
            await self._tick()
            await asyncio.sleep(TICK)
            if self.loop.time() > 6.0:
                self._clear_up()
            if not starts and self._rests():
                break
        await asyncio.sleep(1.0)

    # What the world is made of.

    def _start_worker(self, name: str) -> None:
        process = Process(name)
        self.processes.append(process)
        self._stopping[name] = asyncio.Event()
        self.loop.spawn(process, self._work(process), f"worker {name}")

    async def _work(self, process: Process) -> None:
        database, bus = LinkedDatabase(Line(self.model, self.weather)), LinkedBus(self.bells, process)
        values = Values(database, self.catalog.artifacts, 1 << 30)
        try:
            async with open_writer(database, values, lease=LEASE) as writer:
                equipment = Equipment(
                    database=database,
                    bus=bus,
                    plugins=self.catalog.plugins,
                    gateway=Model(),
                    http=self.catalog.surroundings.http,
                    tool_servers=self.catalog.tool_servers,
                    worlds=KnownWorlds(self.catalog),
                    writer=HastyWriter(writer) if self.broken == "nointent" else writer,
                    values=values,
                    retention=Retention(database, self.catalog.artifacts, 0),
                    region=REGION,
                    worker=process.name,
                    workspaces=Path("none"),
                    tool_settings={},
                    sources=Sources(self._now, self._new_id, self.loop.random.random),
                )
                await Worker(equipment, SETTINGS, self._stopping[process.name]).run()
        # Whatever ends a worker is a finding of this world; the process is gone in any case.
        except Exception as error:
            self.troubles.append(f"worker {process.name} broke: {type(error).__name__}: {error}")
        process.dead = True
        if not self.weather.over:
            self._replace(process)

    def _replace(self, process: Process) -> None:
        pause = self.random.choice((0.1, 1.0, 6.0))
        self.loop.call_later(pause, self._start_worker, f"{process.name}'", context=self.loop.outside)

    # What befalls it.

    def _plan_faults(self) -> None:
        kinds = (self._kill, self._kill, self._freeze, self._freeze, self._stop, self._take_database)
        for _ in range(self.random.choice((0, 1, 2, 3, 4))):
            self.loop.faults[int(self.random.triangular(20, 1500, 200))] = self.random.choice(kinds)

    def _victim(self) -> Process | None:
        alive = [process for process in self.processes if process.runs]
        return self.random.choice(alive) if alive and self.loop.time() < 60 else None

    def _kill(self) -> None:
        process = self._victim()
        if process is not None:
            process.dead = True
            self._replace(process)

    def _freeze(self) -> None:
        process = self._victim()
        if process is not None:
            process.frozen = True
            self.loop.call_later(self.random.choice((0.5, 4.0, LEASE + 1, 2 * LEASE)), self._thaw, process, context=self.loop.outside)

    def _thaw(self, process: Process) -> None:
        process.frozen = False
        self.loop.wake(process)
        self._quiet_since = self.loop.time()

    def _stop(self) -> None:
        process = self._victim()
        if process is not None:
            self._stopping[process.name].set()

    def _take_database(self) -> None:
        self.weather.away_until = self.loop.time() + self.random.choice((0.3, 2.0, LEASE + 2))

    def _clear_up(self) -> None:
        """The storm is over; faults that were planned by steps may still come."""
        if self.weather.stormy:
            self.weather.stormy = False
            self._quiet_since = self.loop.time()

    # People, and messages.

    def _accept(self) -> None:
        agent = self.random.choice(("plain", "plain", "careful", "stubborn"))
        sessions = [session for session in self.model.sessions.values() if session.agent == agent]
        new: dict[str, Any] = {
            "id": str(self._new_id()),
            "new_session_id": str(self._new_id()),
            "agent": agent,
            "priority": self.random.choice((0, 0, 5)),
        }
        if sessions and self.random.random() < 0.4:
            new["session_id"] = str(self.random.choice(sessions).id)
        elif self.random.random() < 0.1:
            new["start_at"] = (self._now() + timedelta(seconds=2)).isoformat()
        program = msgspec.json.encode(self._author.program(agent)).decode()
        self.model.run_start(TENANT, "p", None, None, None, REGION, msgspec.json.encode(new).decode(), program)
        self._ring("queued")

    def _ring(self, outcome: str, run: UUID | None = None, word: str = "look") -> None:
        if outcome == "queued":
            self.bells.ring(runs_ready(REGION), b"")
        elif outcome == "running":
            self.bells.ring(runs_told(REGION), f"{word} {run}".encode())

    async def _tick(self) -> None:
        await self._carry()
        for run in list(self.model.runs.values()):
            if run.state in RESTING or run.id in self.left:
                continue
            self._look_after(run.id, run.state)
            draw = self.random.random()
            if draw < 0.01 and self.weather.stormy:
                self.model.run_cancel(TENANT, run.id)
                self._ring("running", run.id, "cancel")
            elif draw < 0.03 and self.weather.stormy:
                self.model.run_suspend(TENANT, run.id)
                self._ring("running", run.id, "suspend")
        self._check_idle()

    def _look_after(self, run: UUID, state: str) -> None:
        """What a person does about a run that waits for one."""
        if self.random.random() < 0.5:
            return
        if state == "suspended":
            self.model.run_resume(TENANT, run, None, "null", "p")
            self._ring("queued")
        elif state == "needs_review":
            word = self.random.choice(("done", "retry", "fail", "later"))
            if word == "later" and self.model.runs[run].parent_run is None and len(self.model.runs) == 1:
                self.left.add(run)
                return
            self.model.run_resume(TENANT, run, "fail" if word == "later" else word, '"sent"', "p")
            self._ring("queued")
        for wait in self.model.waits_of(run):
            if wait.kind == "approval" and wait.key is not None:
                asked = self.model.approvals[UUID(wait.key)]
                decision = "answered" if asked.kind == "question" else self.random.choice(("approved", "approved", "denied"))
                self._ring(self.model.approval_settle(TENANT, asked.id, decision, "p", None, '{"go":true}'), run)
            elif wait.kind == "event" and (wait.look_at is None or self.random.random() < 0.3):
                (answer,) = self.model.event_send(TENANT, self.model.runs[run].session_id, self._new_id(), wait.key, '{"n":1}')
                self._ring(answer["outcome"], answer["run"])

    async def _carry(self) -> None:
        """Messages go to the real receivers, in the order of their keys, each once: outbox and inbox have tests of their own."""
        held = set[str]()
        database = self._line
        for message in list(self.model.outbox.values()):
            if message.key in held or self.weather.bad(0.4):
                held.add(message.key or "")
                continue
            del self.model.outbox[message.id]
            self._received += 1
            sent = Message(TENANT, message.id, message.kind, message.key, message.payload)
            # The receiver wants asyncpg's connection, and asks it for no more than a line has.
            connection: Any = database
            for ring in await self._receivers[message.kind](connection, sent):
                self.bells.ring(ring.subject, ring.payload)

    # When it is over.

    def _rests(self) -> bool:
        over = all(run.state in RESTING or run.id in self.left for run in self.model.runs.values())
        return over and not self.model.outbox and not any(process.frozen and not process.dead for process in self.processes)

    def _check_idle(self) -> None:
        """A run that has waited for a while in fair weather holds no task of any worker."""
        now = self.loop.time()
        fair = not self.weather.stormy and not self.weather.away and not any(process.frozen for process in self.processes)
        if not fair:
            self._quiet_since = now
        waiting = {run.id: run.epoch for run in self.model.runs.values() if run.state == "waiting"}
        self._idle = {run: self._idle.get(run, (epoch, now)) for run, epoch in waiting.items()}
        for run, (epoch, since) in self._idle.items():
            if waiting[run] != epoch:
                self._idle[run] = (waiting[run], now)
            elif now - max(since, self._quiet_since) > LEASE and f"run {run}" in self.live_tasks():
                self.troubles.append(f"run {run} waits and holds a task")

    def live_tasks(self) -> set[str]:
        """Names of the tasks of living workers that belong to runs."""
        dead = {f"worker {process.name}" for process in self.processes if process.dead}
        names = self.loop.task_names()
        return {name for name, of in names if of is not None and not of.dead and name not in dead and name.split()[0] in OF_RUNS}


OF_RUNS = frozenset({"run", "branch", "journal", "park", "voice"})
