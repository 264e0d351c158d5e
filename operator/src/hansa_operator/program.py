"""`hansa-operator`: reads the settings, runs until SIGTERM or SIGINT, and leaves with an exit status.

0 asked to stop   1 failed   78 misconfigured
"""

import asyncio
import logging
import os
import signal
import sys

from hansa_operator import logs
from hansa_operator.errors import Misconfigured
from hansa_operator.process import open_operator
from hansa_operator.settings import OperatorSettings, load

log = logging.getLogger(__name__)
FAILED, MISCONFIGURED = 1, 78


async def run(settings: OperatorSettings) -> None:
    """Run until a signal."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with open_operator(settings, os.environ) as operator:
        await operator.run(stopping)
    log.info("stopped")


def main() -> None:
    """The program."""
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
