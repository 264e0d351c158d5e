"""`make isolation STATEMENTS=10000`: ask the API, the database and all else as one tenant for whatever it might tell of another, one line
of JSON last.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

import asyncpg
import msgspec

from hansa_crds.identity import Role
from isolation.neighbours import ask_neighbours, build
from isolation.own_database import ask_own_database
from isolation.probes import Probes
from isolation.requests import ask_beyond, ask_routes, set_scene
from isolation.twins import Probed, open_twins
from stack import Stack, free_port, open_stack

EACH = 100
SHOWN = 5


async def probe(options: argparse.Namespace, folder: Path) -> tuple[Probes, Probed]:
    """The whole platform over HTTP, then two databases beside each other."""
    with open_stack(folder) as stack:
        process = stack.serve(HANSA_METRICS_SERVE_PORT=str(free_port()))
        scene = await set_scene(stack, process, stack.worker(HANSA_METRICS_WORKER_PORT=str(free_port())))
        if options.without_policy:
            admin = await asyncpg.connect(stack.admin_url)
            await admin.execute(f"ALTER TABLE hansa.{options.without_policy} DISABLE ROW LEVEL SECURITY")
            await admin.close()
        probes = Probes(scene.words())
        await ask_routes(scene, probes)
        await ask_beyond(scene, probes)
        house = await build(stack, process, roles=get_args(Role))
        neighbours = Probes(house.words)
        await ask_neighbours(house, neighbours)
        probes.take(neighbours)
        if not options.without_policy:  # with a wall down, no further process starts over this database
            await ask_own_database(scene, probes)
        say(f"{probes.total} probes of the running platform, {len(probes.leaks)} leaks")
        return probes, await statements(options, stack, folder)


async def statements(options: argparse.Namespace, stack: Stack, folder: Path) -> Probed:
    """Make two databases, and ask both."""
    async with open_twins(stack, folder) as twins:
        if options.without_policy:
            await twins.full.execute(f"ALTER TABLE hansa.{options.without_policy} DISABLE ROW LEVEL SECURITY")
        total, told = Probed(), time.monotonic()
        for number in range(options.statements // EACH):
            found = await twins.probe([options.seed + number], each=EACH)
            total = Probed(total.seen + found.seen, total.empty + found.empty, total.refused + found.refused, [*total.leaks, *found.leaks])
            if time.monotonic() - told > 2:
                told = time.monotonic()
                say(f"{total.statements} of {options.statements} statements, {len(total.leaks)} leaks")
        return total


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="isolation")
    parser.add_argument("--seed", type=int, default=0, help="of the first hundred statements")
    parser.add_argument("--statements", type=int, default=10_000)
    parser.add_argument("--without-policy", default="", metavar="TABLE", help="leave a table open, which must be found out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hansa-isolation-") as folder:
        begun = time.monotonic()
        probes, probed = asyncio.run(probe(options, Path(folder)))
    leaks = [*probes.leaks, *probed.leaks]
    for leak in [*probes.leaks[:SHOWN], *probed.leaks[:SHOWN]]:
        say(leak)
    answer = {
        "probes": probes.total + probed.statements,
        **probes.counts,
        "statements": probed.statements,
        "answered": probed.seen,
        "empty": probed.empty,
        "refused": probed.refused,
        "leaks": len(leaks),
        "seconds": round(time.monotonic() - begun, 1),
    }
    say(msgspec.json.encode(answer).decode())
    say(f"{answer['probes']} probes, leaks {len(leaks)}")
    return 1 if leaks or probed.seen < 0.3 * probed.statements else 0


if __name__ == "__main__":
    sys.exit(main())
