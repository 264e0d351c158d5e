"""`python -m chaos`: hurts a whole platform under load and counts the broken promises. One JSON line last; the exit status says it too."""

import argparse
import asyncio
import json
import signal
import sys

from chaos.controls import NAMES
from chaos.storm import Outcome, Plan, soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--control", choices=NAMES, default="")
    parser.add_argument("--kinds", default="", help="faults of these kinds alone, comma-separated")
    parser.add_argument("--shapes", default="", help="runs of these shapes alone, comma-separated")
    asked = parser.parse_args()
    plan = Plan(asked.seconds, asked.seed, asked.control, _names(asked.kinds), _names(asked.shapes))
    outcome = asyncio.run(_until_told(plan))
    told = [*outcome.exits, *(f"{violation.kind}: {violation.told}" for violation in outcome.violations)]
    sys.stderr.write("".join(f"\n{each}" for each in told) + "\n")
    sys.stdout.write(json.dumps(outcome.line) + "\n")
    return 0 if outcome.line["ok"] else 1


def _names(text: str) -> frozenset[str]:
    return frozenset(name for name in text.split(",") if name)


async def _until_told(plan: Plan) -> Outcome:
    """SIGTERM ends it as Ctrl-C does: nothing that was started or mounted is left."""
    task = asyncio.create_task(soak(plan), name="soak")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


if __name__ == "__main__":
    sys.exit(main())
