"""One simulated world: workers over the model database, people, messages, and what befalls them, all drawn from one seed.

Workers are the real ones, from claim to park; what is simulated is what they stand on. `broken` leaves out one rule on purpose: those
of the model database, or nointent.
"""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from uuid import UUID

import httpx2

from hansa.runs.context import Sources
from hansa.runs.equipment import Equipment
from hansa.runs.journal import Writer
from hansa.runs.log.keeping import Values
from hansa.runs.log.retention import Retention
from hansa.runs.model import Ask, Claim, EventType, Grant, Unsent, Write, Written
from hansa.runs.worker import Worker
from hansa.runs.writer import open_writer
from hansa.secrets.keyring import Keyring
from hansa.secrets.redaction import Redactor
from hansa.secrets.variables import Variables
from hansa.settings import WorkerSettings
from hansa.tenants.secrets.lookup import Lookup
from hansa.tenants.secrets.service import TenantSecrets
from hansa_sdk import SecretServices
from simulation.database import ModelDatabase
from simulation.loop import Process, VirtualLoop
from simulation.people import REGION, People
from simulation.programs import Catalog, KnownWorlds, Model
from simulation.programs import Line as Witnessed
from simulation.wire import Doorbells, Line, LinkedBus, LinkedDatabase, Weather, instant

LEASE = 5.0
NO_KEYS = Keyring({}, {}, services=SecretServices(httpx2.AsyncClient(verify=False), {}), current="none", stack=AsyncExitStack())
"""No run of a simulated world uses a secret."""
SETTINGS = WorkerSettings(concurrency=4, lease_seconds=LEASE, renew_seconds=1.5, poll_seconds=5.0, grace_seconds=0.5)
PATIENCE = 300.0
"""Virtual seconds after which a world that has not come to rest is stuck."""
TICK = 1.0
STORM = 6.0
"""Seconds after which nobody meddles any more and lines are good; faults that were planned by steps may still come."""


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

    async def reserve(self, claim: Claim, ask: Ask) -> Grant:
        return await self._writer.reserve(claim, ask)

    async def count_message(self, claim: Claim) -> Unsent | None:
        return await self._writer.count_message(claim)

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
        self.people = People(self.model, self.weather, self.bells)
        self.processes: list[Process] = []
        self.troubles: list[str] = []
        self.bill: list[int] = []
        self._stopping: dict[str, asyncio.Event] = {}
        self._idle: dict[UUID, tuple[int, float]] = {}
        self._quiet_since = 0.0

    async def play(self) -> None:
        """From the first run to rest, or until patience is over."""
        self.weather.stormy = self.random.random() < 0.8
        for number in range(self.random.choice((1, 2, 2))):
            self._start_worker(f"w{number}")
        self._plan_faults()
        while self.loop.time() < PATIENCE and not self._rests():
            await self.people.tick()
            self._check_idle()
            await asyncio.sleep(TICK)
            if self.loop.time() > STORM:
                self._clear_up()
        await self._settle()

    async def _settle(self) -> None:
        """What a worker still tries, in ignorance, it gives up once the database is back and says so."""
        self._clear_up()
        give_up = max(self.loop.time(), self.weather.away_until) + 2 * LEASE
        while self.live_tasks() and self.loop.time() < give_up:
            await asyncio.sleep(TICK)

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
                    gateway=Model(self.bill),
                    http=self.catalog.surroundings.http,
                    tool_servers=self.catalog.tool_servers,
                    worlds=KnownWorlds(self.catalog),
                    writer=HastyWriter(writer) if self.broken == "nointent" else writer,
                    values=values,
                    artifacts=self.catalog.artifacts,
                    secrets=TenantSecrets(database, NO_KEYS, Redactor()),
                    lookup=Lookup(Variables({}, ())),
                    retention=Retention(database, self.catalog.artifacts, 0),
                    region=REGION,
                    worker=process.name,
                    workspaces=Path("none"),
                    tool_settings={},
                    sources=Sources(lambda: instant(self.loop.time()), self.weather.new_id, self.loop.random.random),
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
            self.loop.faults[int(self.random.triangular(20, 700, 120))] = self.random.choice(kinds)

    def _victim(self) -> Process | None:
        alive = [process for process in self.processes if process.runs]
        return self.random.choice(alive) if alive and self.loop.time() < 60 else None

    def _kill(self) -> None:
        process = self._victim()
        if process is not None:
            self.model.seen["a worker is killed"] += 1
            process.dead = True
            self._replace(process)

    def _freeze(self) -> None:
        process = self._victim()
        if process is not None:
            self.model.seen["a worker is frozen"] += 1
            process.frozen = True
            self.loop.call_later(self.random.choice((0.5, 4.0, LEASE + 1, 2 * LEASE)), self._thaw, process, context=self.loop.outside)

    def _thaw(self, process: Process) -> None:
        process.frozen = False
        self.loop.wake(process)
        self._quiet_since = self.loop.time()

    def _stop(self) -> None:
        process = self._victim()
        if process is not None:
            self.model.seen["a worker is told to stop"] += 1
            self._stopping[process.name].set()

    def _take_database(self) -> None:
        self.weather.away_until = self.loop.time() + self.random.choice((0.3, 2.0, LEASE + 2))

    def _clear_up(self) -> None:
        if self.weather.stormy:
            self.weather.stormy = False
            self._quiet_since = self.loop.time()

    # When it is over.

    def _rests(self) -> bool:
        return self.people.rest() and not any(process.frozen and not process.dead for process in self.processes)

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
