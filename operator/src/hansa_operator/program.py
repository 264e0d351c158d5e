"""`hansa-operator`: reads the settings, runs until SIGTERM or SIGINT, and leaves with an exit status.

0 asked to stop   1 failed   2 called wrongly   78 misconfigured
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

from hansa_operator import logs
from hansa_operator.errors import Misconfigured
from hansa_operator.process import open_operator
from hansa_operator.settings import NEEDED, OperatorSettings, load, variables

log = logging.getLogger(__name__)
FAILED, WRONG, MISCONFIGURED = 1, 2, 78
USAGE = """\
Usage: hansa-operator

Bring Hansa's objects of a Kubernetes cluster to the control plane, and what becomes of them back into their status.
It runs until SIGTERM, and is set up by its environment:

"""


async def run(settings: OperatorSettings) -> None:
    """Run until a signal."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with open_operator(settings, os.environ) as operator:
        await operator.run(stopping)
    log.info("stopped")


def usage() -> str:
    """What it is for, and every variable with its default."""
    names = variables()
    width = max(map(len, names))
    rows = [f"  {name.ljust(width)}  {default or ('needed' if name in NEEDED else 'not set')}\n" for name, default in names.items()]
    return USAGE + "".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """The program; None: with what it was called with."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given in (["--help"], ["-h"]):
        sys.stdout.write(usage())
        sys.exit(0)
    if given:
        sys.stderr.write(f"hansa-operator: it takes no arguments, and was given {given[0]!r}; --help names its settings\n")
        sys.exit(WRONG)
    try:
        settings = load(os.environ)
        logs.configure(settings.log_format, settings.log_level)
        asyncio.run(run(settings))
    except Misconfigured as error:
        sys.stderr.write(f"hansa-operator: {error}\n")
        sys.exit(MISCONFIGURED)
    except KeyboardInterrupt:
        sys.exit(0)
    except Exception:  # the last word of the process; Kubernetes starts another
        log.exception("the operator has failed")
        sys.exit(FAILED)
