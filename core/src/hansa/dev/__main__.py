"""`python -m hansa.dev OPTIONS`: runs `up` in a process of its own that has imported nothing else, and so stays small.

Must not do anything that `up` does not. Not for people: `hansa up` is.
"""

import asyncio
import sys

from hansa import clock
from hansa.dev.invocation import FAILED, read
from hansa.dev.up import up
from hansa.errors import HansaError


def report(stage: str, detail: str) -> None:
    """A line a step, with its time."""
    sys.stdout.write(f"{clock.now():%Y-%m-%dT%H:%M:%SZ} {stage}: {detail}\n")
    sys.stdout.flush()


def main() -> int:
    """The exit status of `up`, or of the failure that ended it."""
    try:
        return asyncio.run(up(read(sys.argv[1]), report))
    except HansaError as error:
        report(FAILED.strip(" :"), f"{error.detail}\n{error.hint}")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
