"""`make isolation STATEMENTS=10000`: ask the database as one tenant for whatever it might tell of another, one line of JSON last."""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from isolation.twins import Probed, open_twins
from stack import open_stack

EACH = 100
SHOWN = 5


async def probe(options: argparse.Namespace, folder: Path) -> Probed:
    """Make two databases, and ask both."""
    with open_stack(folder) as stack:
        async with open_twins(stack, folder) as twins:
            if options.without_policy:
                await twins.full.execute(f"ALTER TABLE hansa.{options.without_policy} DISABLE ROW LEVEL SECURITY")
            total, told = Probed(), time.monotonic()
            for number in range(options.statements // EACH):
                found = await twins.probe([options.seed + number], each=EACH)
                total = Probed(
                    total.seen + found.seen, total.empty + found.empty, total.refused + found.refused, [*total.leaks, *found.leaks]
                )
                if time.monotonic() - told > 2:
                    told = time.monotonic()
                    sys.stdout.write(f"{total.statements} of {options.statements} statements, {len(total.leaks)} leaks\n")
                    sys.stdout.flush()
            return total


def main() -> int:
    parser = argparse.ArgumentParser(prog="isolation")
    parser.add_argument("--seed", type=int, default=0, help="of the first hundred statements")
    parser.add_argument("--statements", type=int, default=10_000)
    parser.add_argument("--without-policy", default="", metavar="TABLE", help="leave a table open, which must be found out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hansa-isolation-") as folder:
        begun = time.monotonic()
        probed = asyncio.run(probe(options, Path(folder)))
    for leak in probed.leaks[:SHOWN]:
        sys.stdout.write(f"{leak}\n")
    answer = {
        "statements": probed.statements,
        "answered": probed.seen,
        "empty": probed.empty,
        "refused": probed.refused,
        "leaks": len(probed.leaks),
        "seconds": round(time.monotonic() - begun, 1),
    }
    sys.stdout.write(f"{msgspec.json.encode(answer).decode()}\n")
    return 1 if probed.leaks or probed.seen < 0.3 * probed.statements else 0


if __name__ == "__main__":
    sys.exit(main())
