"""`hansa serve`: a control plane of a real installation, set up by the environment.

Must not be imported by any other command: it imports the whole server.
"""

import os
from functools import partial
from typing import Annotated

import msgspec
from cyclopts import Parameter

from hansa import process, settings
from hansa.api.composition import compose


def serve(
    *,
    host: Annotated[str, Parameter(help="Address to listen on (HANSA_SERVER_HOST).")] = "",
    port: Annotated[int | None, Parameter(help="TCP port to listen on, 0 for a free one (HANSA_SERVER_PORT).")] = None,
) -> None:
    """Run the control plane until SIGTERM."""
    found = settings.load(os.environ)
    server = msgspec.structs.replace(found.server, host=host or found.server.host, port=found.server.port if port is None else port)
    found = msgspec.structs.replace(found, server=server)
    process.run(process.serve(found, partial(compose, found)))
