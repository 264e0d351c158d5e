"""The soak: a load and faults side by side for some seconds, then quiet, then the oracle.

Each lane draws its faults from a deck of its own, shuffled by the seed: the order in a lane is the seed's, the interleaving the
machine's. Now and then all lanes rest and one worker is killed: that is when the time to resume is measured.
"""

import asyncio
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from chaos import controls, facts, faults, shapes
from chaos.client import Client, Refused
from chaos.disk import Disk, DiskRefused, open_disk
from chaos.faults import Fault
from chaos.ledger import Ledger
from chaos.oracle import KINDS, Violation, resumes, violations
from chaos.review import Reviewer
from chaos.rig import Rig, open_rig
from chaos.visit import Visit
from runs.engine import LEASE
from samples import SCRIPTED

USERS = 16
STORM_SECONDS = 10.0
SETTLE_SECONDS = 15.0
HEAL_SECONDS = 20.0
RESUME_MARGIN_SECONDS = 1.0
DISK_MEBIBYTES = 4096
REPLAYS = 20
SHOWN = 20


class Means(msgspec.Struct, frozen=True):
    """What this machine offers for it; None where it does not."""

    disk: Disk | None
    clock: Path | None


class Plan(msgspec.Struct, frozen=True):
    """What is asked for. `control`: a defect to put in, which the oracle must then find. `kinds`, `shapes`: these faults and runs alone;
    empty: those that the control is found by, or all."""

    seconds: float
    seed: int
    control: str = ""
    kinds: frozenset[str] = frozenset()
    shapes: frozenset[str] = frozenset()


class Outcome(msgspec.Struct, frozen=True):
    """What came of it: the line that is printed, what was wrong, and which processes have ended without being told to."""

    line: dict[str, Any]
    violations: list[Violation]
    exits: list[str]


class Lane:
    """Draws and injects faults of one target, one after the other, with pauses, until `over`. Holding `lock` keeps it at rest.

    It is never cancelled within a fault: half a fault would not be healed.
    """

    def __init__(self, name: str, deck: list[Fault], *, seed: int, pause: tuple[float, float]) -> None:
        self.lock = asyncio.Lock()
        self.over = False
        self.name = name
        self._deck = deck
        self._chance = random.Random(f"{seed} {name}")
        self._pause = pause

    async def run(self, count: Counter[str]) -> None:
        while True:
            for fault in self._chance.sample(self._deck, len(self._deck)):
                await asyncio.sleep(self._chance.uniform(*self._pause))
                async with self.lock:
                    if self.over:
                        return
                    count[fault.kind] += 1
                    await fault.inject(self._chance)


class Soak:
    """One run of the harness over an open rig."""

    def __init__(self, plan: Plan, rig: Rig, means: Means) -> None:
        self.ledger = Ledger()
        self.count: Counter[str] = Counter()
        self._plan = plan
        self._rig = rig
        self._ending = asyncio.Event()
        self._chance = random.Random(plan.seed)
        self._lanes = [
            Lane(name, own, seed=plan.seed, pause=pause)
            for name, deck, pause in _decks(rig, means)
            if (own := [fault for fault in deck if not plan.kinds or fault.kind in plan.kinds])
        ]

    async def run(self) -> float:
        """Load and faults for the time of the plan, then quiet until every run has ended; seconds that took."""
        async with AsyncExitStack() as stack:
            replicas = [await stack.enter_async_context(client) for client in self._rig.clients()]
            client = Client(replicas, self.ledger)
            await client.post("/v1/objects:apply", _objects(), key="objects", chooser=self._chance, expect=200)
            watchers = [asyncio.create_task(member.watch(), name=f"watch {member.name}") for member in self._rig.members]
            person = Reviewer(client, self.ledger, witness=self._rig.witness, chooser=random.Random(f"{self._plan.seed} reviewer"))
            watchers.append(asyncio.create_task(person.run(), name="reviewer"))
            users = [asyncio.create_task(self._user(client, number), name=f"user {number}") for number in range(USERS)]
            try:
                await self._storm([*watchers, *users])
                self._ending.set()
                await self._rig.whole()
                healed = time.monotonic()
                _, slow = await asyncio.wait(users, timeout=LEASE + SETTLE_SECONDS)
                settled = time.monotonic() - healed
                for task in users:
                    if task not in slow:
                        task.result()
                await self._replay(client)
                return settled
            finally:
                await _cancel([*watchers, *users])

    async def _storm(self, others: list[asyncio.Task[None]]) -> None:
        end = time.monotonic() + self._plan.seconds
        lanes = [asyncio.create_task(lane.run(self.count), name=f"lane {lane.name}") for lane in self._lanes]
        talker = asyncio.create_task(self._progress(end), name="progress")
        calm = asyncio.create_task(self._calm(end), name="calm")
        try:
            done, _ = await asyncio.wait([calm, *lanes, *others], timeout=None, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            assert calm in done, f"{[task.get_name() for task in done]} ended before its time"
        finally:
            await _cancel([talker, calm])
            await self._rest()
            await _cancel(lanes)

    async def _rest(self) -> None:
        """Let every lane heal what it has hurt, and hurt nothing more."""
        for lane in self._lanes:
            lane.over = True
        for lane in self._lanes:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(lane.lock.acquire(), HEAL_SECONDS)

    async def _calm(self, end: float) -> None:
        """From storm to quiet and back until the time is over; returns when all lanes are at rest."""
        while True:
            await asyncio.sleep(min(STORM_SECONDS, max(0.0, end - time.monotonic())))
            async with AsyncExitStack() as stack:
                for lane in self._lanes:
                    await stack.enter_async_context(lane.lock)
                victim = self._chance.choice(self._rig.of_kind("worker"))
                self.count["worker_kill"] += 1
                self.ledger.deaths.append(await faults.measured_kill(self._rig, victim))
                if time.monotonic() >= end:
                    for lane in self._lanes:
                        lane.over = True  # none must hurt anything once these locks are given back
                    return

    async def _user(self, client: Client, number: int) -> None:
        chance = random.Random(f"{self._plan.seed} user {number}")
        visits, known = 0, [shape for shape in shapes.SHAPES if not self._plan.shapes or shape.name in self._plan.shapes]
        while not self._ending.is_set():
            visits += 1
            (shape,) = chance.choices(known, [shape.weight for shape in known])
            visit = Visit(
                client, self.ledger, shape=shape.name, name=f"s{self._plan.seed}-u{number}-{visits}", chooser=random.Random(chance.random())
            )
            try:
                await shape.play(visit)
            except Refused:
                continue  # the ledger has it
            await asyncio.sleep(chance.uniform(0.0, 0.2))

    async def _replay(self, client: Client) -> None:
        ended = sorted(id_ for promise in self.ledger.promises.values() for id_ in promise.ids)
        for run in self._chance.sample(ended, min(REPLAYS, len(ended))):
            try:
                self.ledger.replays[run] = await client.get(f"/v1/runs/{run}/replay", chooser=self._chance)
            except Refused:
                continue

    async def _progress(self, end: float) -> None:
        while sys.stderr.isatty():
            left = max(0.0, end - time.monotonic())
            sys.stderr.write(f"\r{left:4.0f} s left   {self.count.total():5} faults   {self.ledger.accepted():6} runs accepted ")
            sys.stderr.flush()
            await asyncio.sleep(0.5)


def _decks(rig: Rig, means: Means) -> Iterator[tuple[str, list[Fault], tuple[float, float]]]:
    """For each lane its name, its faults and the least and longest pause between them, in seconds."""
    for member in rig.of_kind("worker"):
        yield member.name, faults.of_process("worker", member, means.clock), (0.4, 1.6)
    for member in rig.of_kind("serve"):
        yield member.name, faults.of_process("control_plane", member, means.clock), (1.0, 3.0)
    yield "nats", faults.of_nats(rig), (0.5, 2.0)
    yield "postgres", faults.of_postgres(rig, means.disk), (1.5, 4.0)


async def soak(plan: Plan, *, forked: bool = False) -> Outcome:
    """Do it all. The folder with logs and witness is left behind when something was wrong. `forked`: see `stack.Process`."""
    focus = controls.focus(plan.control)
    plan = msgspec.structs.replace(plan, kinds=plan.kinds or focus.kinds, shapes=plan.shapes or focus.shapes)
    folder = Path(tempfile.mkdtemp(prefix="hansa-chaos-"))
    missing: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        disk: Disk | None = None
        try:
            disk = stack.enter_context(open_disk(folder / "disk.ext4", folder / "data" / "postgres", mebibytes=DISK_MEBIBYTES))
        except DiskRefused as error:
            missing = dict.fromkeys(("postgres_power_loss", "postgres_disk_full"), str(error))
        clock = await asyncio.to_thread(faults.faketime)
        if clock is None:
            missing |= dict.fromkeys(("worker_clock", "control_plane_clock"), "libfaketime is not here, or does nothing here")
        rig = await stack.enter_async_context(open_rig(folder, forked=forked))
        connection = await rig.admin()
        await controls.install(connection, plan.control)
        await connection.close()
        run = Soak(plan, rig, Means(disk, clock))
        settled = await run.run()
        connection = await rig.admin()
        found = await facts.read(connection, rig.witness)
        await connection.close()
        wrong = violations(run.ledger, found)
        times = resumes(run.ledger, found.events)
        line = _line(plan, run, wrong, times)
        line["runs"], line["effects"] = len(found.runs), sum(each["phase"] == "effect" for each in found.witness)
        line["needs_review"] = sum(each.type == "run.needs_review" for each in found.events)
        line |= {
            "settled_s": round(settled, 2),
            "exits": sum(len(member.exits) for member in rig.members),
            "unavailable": missing,
            "load": round(os.getloadavg()[0], 1),
        }
    line["ok"] = not wrong and bool(times) and line["resume_p95"] <= LEASE + RESUME_MARGIN_SECONDS
    if line["ok"]:
        shutil.rmtree(folder)
    else:
        line["folder"] = str(folder)
    return Outcome(line, wrong, [told for member in rig.members for told in member.exits])


def _line(plan: Plan, run: Soak, wrong: list[Violation], times: list[float]) -> dict[str, Any]:
    kinds = Counter(violation.kind for violation in wrong)
    return {
        "seconds": plan.seconds,
        "seed": plan.seed,
        **({"control": plan.control} if plan.control else {}),
        "faults": dict(sorted(run.count.items())),
        "faults_total": run.count.total(),
        **{kind: kinds[kind] for kind in KINDS},
        "resume_p50": _quantile(times, 0.5),
        "resume_p95": _quantile(times, 0.95),
        "resumes": len(times),
        "lease": LEASE,
        "violations": [f"{each.kind}: {each.told}" for each in wrong[:SHOWN]],
    }


def _quantile(times: list[float], share: float) -> float:
    return round(times[min(len(times) - 1, int(len(times) * share))], 3) if times else 0.0


def _objects() -> dict[str, Any]:
    return {"objects": [{"manifest": manifest} for manifest in (SCRIPTED, *shapes.AGENTS)]}


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
