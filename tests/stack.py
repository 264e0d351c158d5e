"""The whole platform for tests: real PostgreSQL, real NATS, and as many control planes and workers as a test starts.

Processes are real ones (`python -m hansa serve`), killed and frozen by their pid. What they say goes to files in the stack's folder.
"""

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Self

import httpx2

import forkserver
from hansa.dev.environment import Places, for_migrate, for_processes, for_worker
from hansa.dev.servers import Servers, embedded_servers
from hansa.settings import Settings, load

READY_SECONDS = 30.0
TRUSTING_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain HTTP, which have no use for one."""


UNPLUGGED = """
# No test takes the power away, and what a process has written outlives its death without a word to the disk.
fsync = off
full_page_writes = off
autovacuum_naptime = 1min
"""


class Process:
    """A running `hansa serve` or `hansa worker`."""

    def __init__(
        self,
        name: str,
        env: dict[str, str],
        log: Path,
        *,
        port: int = 0,
        forked: bool = True,
        trust: ssl.SSLContext | None = None,
        command: Sequence[str] = (),
    ) -> None:
        """`forked`: from a process that has all imports already, which is quicker; as a user starts it if not. `trust`: of one that
        speaks TLS. `command`: what starts it, if not `hansa`. `metrics` is the port on which it shows them; 0: it shows none."""
        self.log = log
        self.port = port
        self.metrics = int(env.get(f"HANSA_METRICS_{name.upper()}_PORT", "0"))
        self.trust = trust
        log.touch()
        own = command or (sys.executable, "-m", "hansa", name)
        self._process = _forked(name, env, log) if forked and not command and "LD_PRELOAD" not in env else _popen(own, env, log)

    @property
    def url(self) -> str:
        return f"{'https' if self.trust else 'http'}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ready(self) -> Self:
        """Wait for a control plane to be ready, or for a worker to have started."""
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            died = self._process.poll() is not None
            # What was started may have died of its work since: only one that never got there has failed to start.
            if not self.port and b"worker.started" in self.log.read_bytes():
                return self
            if died:
                break
            if self.port and _answers(self.port, self.trust):
                return self
            time.sleep(0.05)
        raise AssertionError(f"the process is not ready:\n{self.log.read_text()[-4000:]}")

    def wait(self, patience: float) -> int:
        """The exit status, when it has ended by itself."""
        return self._process.wait(patience)

    def kill(self) -> None:
        """kill -9."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def terminate(self, patience: float = 20.0) -> int:
        """SIGTERM, and the exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(patience)

    def stop(self) -> None:
        """End it however it is."""
        if self._process.poll() is None:
            self.thaw()
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()


class Stack:
    """Servers, and the processes started over them. Use `open_stack`."""

    def __init__(self, servers: Servers, folder: Path, *, forked: bool = True) -> None:
        self.servers = servers
        self.folder = folder
        self.forked = forked
        nats = servers.nats
        self._places = Places(
            servers.folder, servers.postgres.url(password=True), nats.url, str(nats.credentials_file), str(nats.operator_file)
        )
        self._processes: list[Process] = []

    @property
    def environ(self) -> dict[str, str]:
        """What the processes are given."""
        return for_processes({**os.environ, "HANSA_LOG_FORMAT": "text", "HANSA_CREDENTIALS_ALLOW": "*_TOKEN,*_FOR_TESTS"}, self._places)

    @property
    def settings(self) -> Settings:
        """Settings with the admin's URL, for tests that open the database themselves."""
        return load(for_migrate({}, self._places))

    @property
    def admin_url(self) -> str:
        return self._places.database

    @property
    def key(self) -> str:
        """The first API key."""
        return self.servers.folder.api_key.read_text().strip()

    def migrate(self) -> None:
        env = for_migrate({**os.environ, "HANSA_LOG_FORMAT": "text"}, self._places)
        process = Process("migrate", env, self.folder / "migrate.log", forked=self.forked)
        assert process.wait(60) == 0, process.log.read_text()

    def serve(self, **extra: str) -> Process:
        """One more control plane, ready."""
        return self._serve(None, extra)

    def serve_over_tls(self, trust: ssl.SSLContext, **extra: str) -> Process:
        """One more control plane, ready, which speaks TLS; `trust`: how to speak it to it."""
        return self._serve(trust, extra)

    def _serve(self, trust: ssl.SSLContext | None, extra: dict[str, str]) -> Process:
        port = free_port()
        env = {**self.environ, "HANSA_SERVER_PORT": str(port), **extra}
        log = self.folder / f"serve-{len(self._processes)}.log"
        return self._keep(Process("serve", env, log, port=port, forked=self.forked, trust=trust))

    def worker(self, **extra: str) -> Process:
        """One more worker, started."""
        log = self.folder / f"worker-{len(self._processes)}.log"
        return self._keep(Process("worker", {**for_worker(self.environ), **extra}, log, forked=self.forked))

    def adopt(self, command: Sequence[str], environ: dict[str, str], log: Path, *, port: int) -> Process:
        """A control plane that is started by another command, ready."""
        return self._keep(Process("serve", environ, log, port=port, command=command))

    def client(self, process: Process, **options: Any) -> httpx2.AsyncClient:
        """A client with the first key."""
        headers = {"authorization": f"Bearer {self.key}"}
        return plain_client(process.url, headers=headers, trust=process.trust, **options)

    def pid(self, server: str) -> int:
        """The process of `postgres` or `nats`; 0 while it is down."""
        try:
            return int((self.servers.folder.run / f"{server}.pid").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def freeze_server(self, server: str) -> None:
        os.kill(self.pid(server), signal.SIGSTOP)

    def kill_server(self, server: str) -> None:
        """kill -9; the supervisor starts it again."""
        os.kill(self.pid(server), signal.SIGKILL)

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.stop()

    def _keep(self, process: Process) -> Process:
        self._processes.append(process)
        return process.ready()


@contextmanager
def open_stack(folder: Path, *, forked: bool = True, like: Path | None = None) -> Iterator[Stack]:
    """Servers over `folder`, migrated; they run on a loop and thread of their own, so that a test may block. `forked`: see `Process`.
    `like`: see `prepared`; to make a database and to migrate it takes four times as long as to copy one."""
    if like is not None:
        subprocess.run(["cp", "-a", like, folder / "data"], check=True)
    started, stopping, found, failed = threading.Event(), threading.Event(), list[Servers](), list[BaseException]()

    async def run() -> None:
        async with embedded_servers(folder / "data") as servers:
            found.append(servers)
            started.set()
            await asyncio.to_thread(stopping.wait)  # a poll would take a hundredth of a core for as long as the stack runs

    def guarded() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            started.set()

    thread = threading.Thread(target=guarded, name="servers")
    thread.start()
    try:
        started.wait(60)
        assert found, f"the servers did not start: {failed}"
        stack = Stack(found[0], folder, forked=forked)
        if like is None:
            stack.migrate()
        try:
            yield stack
        finally:
            stack.stop()
    finally:
        stopping.set()
        thread.join(30)


def prepared(root: Path) -> Path:
    """A data folder to be copied: migrated, and of servers that have ended; PostgreSQL does not wait for the disk in it. The first process
    to ask makes it in `root`, others wait."""
    made = root / "data"
    with (root / "data.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not made.is_dir():
            folder = Path(tempfile.mkdtemp(prefix="hansa-data-"))
            with open_stack(folder):
                pass
            with (folder / "data/postgres/data/postgresql.conf").open("a") as configuration:
                configuration.write(UNPLUGGED)
            subprocess.run(["mv", folder / "data", made], check=True)
            shutil.rmtree(folder)
    return made


def plain_client(url: str, *, trust: ssl.SSLContext | None = None, **options: Any) -> httpx2.AsyncClient:
    """A client of an address on this machine. If it is plain HTTP, reading the system's certificates for it would cost 75 ms each."""
    return httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30, verify=trust or TRUSTING_NOBODY, **options)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _forked(name: str, env: dict[str, str], log: Path) -> forkserver.Child:
    return forkserver.shared().start([name], env, (forkserver.NOTHING, log, log))


def _popen(command: Sequence[str], env: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as sink:
        return subprocess.Popen(command, env=env, stdout=sink, stderr=sink)


def _answers(port: int, trust: ssl.SSLContext | None) -> bool:
    # Asked often, so by the lightest of clients.
    kind = partial(HTTPSConnection, context=trust) if trust else HTTPConnection
    asking = kind("127.0.0.1", port, timeout=2)
    try:
        asking.request("GET", "/readyz")
        return asking.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        asking.close()
