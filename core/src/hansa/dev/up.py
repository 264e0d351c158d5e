"""`hansa up`: the servers, then migrations, then the control plane and its workers, over one data folder until SIGTERM or Ctrl-C.

Must not import what those processes import. Warning: the listening socket of the API is ours and is only lent to the control plane,
so that its port is judged before anything starts and outlives each of its processes.
"""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from hansa import clock
from hansa.dev import ports
from hansa.dev.dedicated import keep_dedicated
from hansa.dev.environment import DEDICATED, Places, for_migrate, for_processes, for_worker, shown
from hansa.dev.folder import DataFolder, ReadyFile
from hansa.dev.launch import Launch, run_to_end
from hansa.dev.nats import EmbeddedNats
from hansa.dev.postgres import EmbeddedPostgres
from hansa.dev.supervisor import Child, Report, Supervisor
from hansa.errors import Misconfigured

PROBE_SECONDS = 5.0
TAIL_LINES = 15
OK = b"200"


class Commands(msgspec.Struct, frozen=True):
    """The command lines of Hansa's own processes."""

    migrate: tuple[str, ...] = (sys.executable, "-m", "hansa", "migrate")
    serve: tuple[str, ...] = (sys.executable, "-m", "hansa", "serve")
    worker: tuple[str, ...] = (sys.executable, "-m", "hansa", "worker")


class UpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to run. Port 0 takes a free one. `environ` is handed on to the processes, and may name servers of your own."""

    data: Path
    host: str = ports.LOOPBACK
    port: int = 7420
    postgres_port: int = 0
    nats_port: int = 0
    workers: int = 1
    dedicated: tuple[str, ...] = ()
    """Tenants that have a database to themselves."""
    ready_seconds: float = 60.0
    """How long the control plane may take to get ready."""
    grace_seconds: float = 15.0
    """How long a process may take to stop; more than the 10 s that it grants its own work."""
    environ: Mapping[str, str]
    commands: Commands = Commands()


async def up(options: UpOptions, report: Report) -> int:
    """Run until told to stop; the exit status. Raises a `StackFailure` when it can't start or something is given up."""
    loop = asyncio.get_running_loop()
    stack = _Stack(options, report)
    running = asyncio.create_task(stack.run(), name="stack")
    told: list[int] = []

    def stop(number: int) -> None:
        told.append(number)
        if len(told) == 1 and not stack.ending:
            report("stop", f"{signal.Signals(number).name}; again for at once")
            running.cancel()
        else:
            stack.hurry()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    try:
        return await running
    except asyncio.CancelledError:
        if not told:
            raise
        report("stop", "everything has stopped")
        return 0
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)


class _Stack:
    """One run of everything."""

    def __init__(self, options: UpOptions, report: Report) -> None:
        self._options = options
        self._report = report
        self._supervisor: Supervisor | None = None
        self.ending = False

    def hurry(self) -> None:
        """Grant the processes no more grace."""
        if self._supervisor is not None:
            self._supervisor.hurry()

    async def run(self) -> int:
        """Start everything and keep it running until cancelled; the exit status when migrations fail."""
        options, began = self._options, clock.monotonic()
        async with AsyncExitStack() as owned:
            trust = _trust(options.environ)
            folder = await owned.enter_async_context(DataFolder(options.data))
            listener = owned.enter_context(ports.listen(options.host, options.port))
            self._supervisor = supervisor = await owned.enter_async_context(Supervisor(folder, report=self._report))
            owned.callback(self._begin_end)
            places = self._dedicated(await self._servers(folder, supervisor))
            status = await self._migrate(for_migrate(options.environ, places))
            if status:
                return status
            port = int(listener.getsockname()[1])
            await self._processes(supervisor, for_processes(options.environ, places), listener, trust)
            url = f"{'https' if trust else 'http'}://{ports.url_host(options.host)}:{port}"
            ready = ReadyFile(
                url=url,
                api_key_file=str(folder.api_key),
                postgres=shown(places.database),
                nats=shown(places.nats),
                pid=os.getpid(),
                started_at=clock.now(),
            )
            folder.write_ready(ready)
            owned.callback(folder.ready_file.unlink, missing_ok=True)
            self._report("ready", f"{url} after {clock.monotonic() - began:.1f} s")
            await supervisor.failure()
        return 0

    def _begin_end(self) -> None:
        self.ending = True

    async def _servers(self, folder: DataFolder, supervisor: Supervisor) -> Places:
        options, began = self._options, clock.monotonic()
        own_database, own_nats = options.environ.get("HANSA_DATABASE_URL", ""), options.environ.get("HANSA_NATS_URL", "")
        postgres = None if own_database else EmbeddedPostgres(folder, supervisor, port=options.postgres_port)
        nats = None if own_nats else EmbeddedNats(folder, supervisor, port=options.nats_port)
        if nats:
            await nats.start()
        if postgres:
            self._report("postgres", "starting" if postgres.exists() else "making a new database")
            await postgres.start()
        if nats:
            await nats.ready()
            self._report("nats", f"ready at {nats.url}")
        if postgres:
            await postgres.ready()
            self._report("postgres", f"ready at {postgres.url(password=False)} after {clock.monotonic() - began:.1f} s")
        return Places(
            folder=folder,
            database=postgres.url(password=True) if postgres else own_database,
            nats=nats.url if nats else own_nats,
            nats_credentials_file=str(nats.credentials_file) if nats else "",
            nats_operator_file=str(nats.operator_file) if nats else "",
        )

    def _dedicated(self, places: Places) -> Places:
        """With the databases that tenants have to themselves; where the caller's environment names them, it is as that says."""
        options = self._options
        if not options.environ.get(DEDICATED):
            return msgspec.structs.replace(places, dedicated_files=keep_dedicated(places, options.dedicated))
        if options.dedicated:
            raise Misconfigured(f"{DEDICATED} names the databases of tenants already", hint="Leave --dedicated out, or that unset.")
        return places

    async def _migrate(self, env: Mapping[str, str]) -> int:
        began = clock.monotonic()
        status, output = await run_to_end(Launch(argv=self._options.commands.migrate, env=env))
        if status:
            lines = "\n".join(output.splitlines()[-TAIL_LINES:])
            self._report("migrate", f"failed with exit status {status}; its last lines:\n{lines}")
            return status if status > 0 else 128 - status
        self._report("migrate", f"done after {clock.monotonic() - began:.1f} s")
        return 0

    async def _processes(
        self, supervisor: Supervisor, env: Mapping[str, str], listener: socket.socket, trust: ssl.SSLContext | None
    ) -> None:
        options, descriptor = self._options, listener.fileno()
        serving = Launch(argv=options.commands.serve, env={**env, "HANSA_SERVER_FD": str(descriptor)}, fds=(descriptor,))
        working = Launch(argv=options.commands.worker, env=for_worker(env))
        await supervisor.start(Child(name="serve", launch=serving, grace=options.grace_seconds))
        await supervisor.start(
            *(Child(name=f"worker-{number}", launch=working, grace=options.grace_seconds) for number in range(1, options.workers + 1))
        )
        host, port = listener.getsockname()[:2]

        async def is_ready() -> bool:
            return await readiness(ports.url_host(host).strip("[]"), port, trust=trust)

        await supervisor.until(is_ready, name="serve", seconds=options.ready_seconds)


def _trust(environ: Mapping[str, str]) -> ssl.SSLContext | None:
    """How to ask our own control plane over TLS, None without; whom we ask is known, since the socket is ours."""
    if not environ.get("HANSA_SERVER_TLS_CERT_FILE"):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    shown_file = environ.get("HANSA_CLIENT_CERT_FILE", "")
    if environ.get("HANSA_SERVER_TLS_CLIENT_CA_FILE") and not shown_file:
        raise Misconfigured(
            "the control plane lets in only who shows a certificate, and HANSA_CLIENT_CERT_FILE names none for `hansa up` to ask it with",
            hint="Set HANSA_CLIENT_CERT_FILE and HANSA_CLIENT_KEY_FILE, which every command needs then.",
        )
    try:
        if shown_file:
            context.load_cert_chain(shown_file, environ.get("HANSA_CLIENT_KEY_FILE") or None)
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(f"HANSA_CLIENT_CERT_FILE can't be used: {error}", hint="It is a PEM file, as is its key.") from error
    return context


async def readiness(host: str, port: int, *, trust: ssl.SSLContext | None = None) -> bool:
    """Whether GET /readyz of the API is answered with 200."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(host, port, ssl=trust)
            try:
                writer.write(f"GET /readyz HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
                return (await reader.readline()).split()[1:2] == [OK]
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError):
        return False
