"""`make simulate SEED=0 WORLDS=100000`: play worlds, print what came of them, one line of JSON last. One world: its log too."""

import argparse
import sys
import time

import msgspec

from simulation.coverage import OF_WORLDS
from simulation.database import BROKEN
from simulation.explore import Explored, judge, open_crew
from simulation.programs import Catalog

SHOWN = 10


def show(seed: int, broken: str) -> None:
    """A world's log, in the order of its sessions; workers say on the way what they log."""
    world, _ = judge(seed, Catalog(), broken=broken)
    for session in world.model.sessions.values():
        for event in session.events:
            sys.stdout.write(f"{session.id} {event.seq:3} run {event.run_id} {event.type} {event.step or ''} {event.data}\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation")
    parser.add_argument("--seed", type=int, default=0, help="of the first world")
    parser.add_argument("--worlds", type=int, default=100_000)
    parser.add_argument("--control", default="", choices=["", *BROKEN, "nointent"], help="leave out one rule, which must be found out")
    options = parser.parse_args()
    begun, told, explored = time.monotonic(), 0.0, Explored()
    if options.worlds == 1:
        show(options.seed, options.control)
    with open_crew() as crew:
        for explored in crew.explore(range(options.seed, options.seed + options.worlds), broken=options.control):
            if time.monotonic() - told > 2:
                told = time.monotonic()
                sys.stdout.write(f"{explored.worlds} of {options.worlds} worlds, {len(explored.failing)} of them wrong\n")
                sys.stdout.flush()
    seconds = time.monotonic() - begun
    for seed, found in sorted(explored.failing.items())[:SHOWN]:
        sys.stdout.write(f"seed {seed}: {'; '.join(found)}\n")
    answer = {
        "worlds": explored.worlds,
        "wrong": len(explored.failing),
        "seeds": sorted(explored.failing)[:SHOWN],
        "seconds": round(seconds, 1),
        "steps": explored.steps,
        "never_seen": [name for name in OF_WORLDS if name not in explored.seen],
        "seen": dict(sorted(explored.seen.items())),
    }
    sys.stdout.write(f"{msgspec.json.encode(answer).decode()}\n")
    return 1 if explored.failing else 0


if __name__ == "__main__":
    sys.exit(main())
