"""Plays worlds, one a seed, and judges them. `python -m simulation.explore 7`: that world, with its log."""

import sys
import time
from random import Random

import structlog

from simulation.loop import Livelock, VirtualLoop
from simulation.oracle import diverged, violations
from simulation.programs import Catalog, Line, told
from simulation.world import World


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
    found += world.troubles + violations(world.model, world.witness, world.left)
    found += [f"a task is left: {name}" for name in sorted(world.live_tasks())]
    world.weather.over = True
    return found + world.loop.run_until_complete(diverged(world.model, catalog))


def silent(_: object, __: str, ___: object) -> str:
    raise structlog.DropEvent


if __name__ == "__main__":
    catalog = Catalog()
    structlog.configure(processors=[silent])
    first, count = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    broken = sys.argv[3] if len(sys.argv) > 3 else ""
    begun = time.monotonic()
    bad = 0
    steps = 0
    for seed in range(first, first + count):
        world, found = judge(seed, catalog, broken=broken)
        steps += world.loop.steps
        if found:
            bad += 1
            sys.stdout.write(f"{seed}: {found}\n")
    sys.stdout.write(f"{count} worlds, {bad} bad, {steps / count:.0f} steps, {time.monotonic() - begun:.2f} s\n")
