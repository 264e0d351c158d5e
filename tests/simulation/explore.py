"""Plays worlds, one a seed, in as many processes as there are cores, and judges them."""

import gc
import hashlib
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from random import Random

import msgspec
import structlog

from simulation.loop import Livelock, VirtualLoop
from simulation.oracle import diverged, violations
from simulation.programs import Catalog, Line, told
from simulation.world import World

CHUNK = 100
"""Worlds that a process plays before it says what came of them, unless told otherwise."""


class Explored(msgspec.Struct):
    """What came of worlds. `failing`: seed -> everything that is wrong; `seen`: how often what happened; `digest`: of all logs."""

    worlds: int = 0
    steps: int = 0
    failing: dict[int, list[str]] = {}
    seen: dict[str, int] = {}
    digest: str = ""

    def add(self, other: "Explored") -> None:
        self.worlds, self.steps = self.worlds + other.worlds, self.steps + other.steps
        self.failing |= other.failing
        self.seen = dict(Counter(self.seen) + Counter(other.seen))


def judge(seed: int, catalog: Catalog, *, broken: str = "") -> tuple[World, list[str]]:
    """Play a world; everything that is wrong with it."""
    witness, random = list[Line](), Random(seed)
    with told(witness, random):
        world = World(VirtualLoop(random), witness, catalog, broken=broken)
        try:
            return world, _judged(world, catalog)
        finally:
            world.weather.over = True
            world.loop.end()


def _judged(world: World, catalog: Catalog) -> list[str]:
    found: list[str] = []
    try:
        world.loop.run_until_complete(world.play())
    except Livelock as error:
        found.append(str(error))
    found += world.troubles + violations(world.model, world.witness, world.bill, left=world.people.left)
    found += [f"a task is left: {name}" for name in sorted(world.live_tasks())]
    world.weather.over = True
    return found + world.loop.run_until_complete(diverged(world.model, catalog))


def play(seeds: Sequence[int], broken: str = "") -> Explored:
    """Play worlds one after the other, in this process."""
    explored, catalog = Explored(), Catalog()
    seen, digest = Counter[str](), hashlib.sha256()
    for seed in seeds:
        world, found = judge(seed, catalog, broken=broken)
        explored.worlds, explored.steps = explored.worlds + 1, explored.steps + world.loop.steps
        seen.update(world.model.seen)
        digest.update(msgspec.json.encode([session.events for session in world.model.sessions.values()]))
        if found:
            explored.failing[seed] = found
    explored.seen, explored.digest = dict(+seen), digest.hexdigest()
    return explored


def _prepare() -> None:
    """What is made once in each process: nobody reads what workers log, and what is there now stays."""
    structlog.configure(processors=[_silent])
    gc.freeze()
    gc.set_threshold(20_000, 20, 1000)


def _silent(_: object, __: str, ___: object) -> str:
    raise structlog.DropEvent


class Crew:
    """Processes that play worlds. Use `open_crew`."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def explore(self, seeds: range, *, broken: str = "", chunk: int = CHUNK) -> Iterator[Explored]:
        """What came of the worlds so far, again and again as `chunk` more are played. Who has seen enough just stops asking."""
        total = Explored()
        futures = [self._pool.submit(play, seeds[n : n + chunk], broken) for n in range(0, len(seeds), chunk)]
        try:
            for future in as_completed(futures):
                total.add(future.result())
                yield total
        finally:
            for future in futures:
                future.cancel()


@contextmanager
def open_crew() -> Iterator[Crew]:
    """A process a core."""
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn"), _prepare) as pool:
        yield Crew(pool)
