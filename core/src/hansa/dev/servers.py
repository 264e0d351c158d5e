"""PostgreSQL and NATS alone over a folder, without Hansa's processes: for tests and for measuring.

Must not know Hansa's processes.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from hansa.dev.folder import DataFolder
from hansa.dev.nats import EmbeddedNats
from hansa.dev.postgres import EmbeddedPostgres
from hansa.dev.supervisor import Patience, Supervisor


class Servers(msgspec.Struct, frozen=True):
    """Two servers that accept connections, and what one needs to kill them: the supervisor starts them again on the same ports."""

    folder: DataFolder
    supervisor: Supervisor
    postgres: EmbeddedPostgres
    nats: EmbeddedNats


@asynccontextmanager
async def embedded_servers(path: Path, *, patience: Patience | None = None) -> AsyncIterator[Servers]:
    """Run both servers on free ports over the data folder `path`."""
    async with DataFolder(path) as folder, Supervisor(folder, report=_silent, patience=patience) as supervisor:
        nats, postgres = EmbeddedNats(folder, supervisor), EmbeddedPostgres(folder, supervisor)
        await nats.start()
        await postgres.start()
        await nats.ready()
        await postgres.ready()
        yield Servers(folder=folder, supervisor=supervisor, postgres=postgres, nats=nats)


def _silent(_stage: str, _detail: str) -> None:
    """Nobody is told."""
