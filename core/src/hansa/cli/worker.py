"""`hansa worker`: a worker of a real installation, set up by the environment.

Must not be imported by any other command: it imports the whole engine.
"""

import os
from typing import Annotated

import msgspec
from cyclopts import Parameter

from hansa import process, settings


def worker(*, concurrency: Annotated[int | None, Parameter(help="Runs at once (HANSA_WORKER_CONCURRENCY).")] = None) -> None:
    """Run a worker until SIGTERM."""
    found = settings.load(os.environ)
    if concurrency is not None:
        found = msgspec.structs.replace(found, worker=msgspec.structs.replace(found.worker, concurrency=concurrency))
    process.run(process.worker(found))
