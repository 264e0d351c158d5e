"""`hansa serve` and `hansa worker`: the processes of a real installation, set up by the environment.

Must not be imported by any other command: it imports the whole server.
"""

import os
from typing import Annotated

import msgspec
from cyclopts import Parameter

from hansa import process, settings


def serve(
    *,
    host: Annotated[str, Parameter(help="Address to listen on (HANSA_SERVER_HOST).")] = "",
    port: Annotated[int | None, Parameter(help="TCP port to listen on, 0 for a free one (HANSA_SERVER_PORT).")] = None,
) -> None:
    """Run the control plane until SIGTERM."""
    found = settings.load(os.environ)
    server = msgspec.structs.replace(found.server, host=host or found.server.host, port=found.server.port if port is None else port)
    process.run(process.serve(msgspec.structs.replace(found, server=server)))


def worker(*, concurrency: Annotated[int | None, Parameter(help="Runs at once (HANSA_WORKER_CONCURRENCY).")] = None) -> None:
    """Run a worker until SIGTERM."""
    found = settings.load(os.environ)
    if concurrency is not None:
        found = msgspec.structs.replace(found, worker=msgspec.structs.replace(found.worker, concurrency=concurrency))
    process.run(process.worker(found))
