"""The platform under test: two servers, two control planes and two workers, each process behind links of its own.

A process that has died, by our hand or its own, is started again, as its supervisor would. Everything here is ended by its pid.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx2

from chaos.link import LOOPBACK, Link
from hansa.dev.environment import Places, for_processes
from hansa.dev.servers import Servers, embedded_servers
from hansa.dev.supervisor import Patience
from runs.engine import DOUBLES, QUICK
from stack import Process, Stack, free_port

WATCH_SECONDS = 0.1
READY_SECONDS = 60.0
RESTART_SECONDS = 0.2
EXIT_LINES = 4
REQUEST_SECONDS = 3.0
DATABASE_SECONDS = 3.0
SETTINGS = {
    **QUICK,
    "HANSA_WORKER_CONCURRENCY": "32",
    "HANSA_DATABASE_TIMEOUT_SECONDS": str(DATABASE_SECONDS),
    # Longer than a request may wait for the database: what is open when a control plane is drained gets its own answer.
    "HANSA_SERVER_GRACE_SECONDS": "4",
    "HANSA_MESSAGES_RESEND_SECONDS": "1",
    "HANSA_MESSAGES_POLL_SECONDS": "0.3",
    "HANSA_MESSAGES_CONCURRENCY": "1",
    "HANSA_PLUGINS": "runtimes,scripted,witness",
    "HANSA_LOG_FORMAT": "text",
}
NEVER_GIVEN_UP = Patience(first_pause=0.1, longest_pause=0.3, deaths=1_000_000)


class Member:
    """A control plane (`serve`) or a worker, in all its lives."""

    def __init__(self, kind: str, stack: Stack, *, number: int, env: dict[str, str], links: dict[str, Link]) -> None:
        self.kind = kind
        self.name = f"{kind}-{number}"
        self.links = links
        self.port = free_port() if kind == "serve" else 0
        self.exits: list[str] = []
        self._stack = stack
        self._env = env
        self._lives = 0
        self._away = False
        self._extra: dict[str, str] = {}
        self._process = self._spawn()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ready(self) -> None:
        """Wait until it serves, or works, in this life or the next."""
        end = time.monotonic() + READY_SECONDS
        while True:
            try:
                await asyncio.to_thread(self._process.ready)
                return
            except AssertionError:
                if time.monotonic() >= end:
                    raise
                await asyncio.sleep(WATCH_SECONDS)

    async def kill(self, *, away: float = RESTART_SECONDS, extra: dict[str, str] | None = None) -> None:
        """kill -9, `away` seconds of absence, and a new life in which `extra` is added to its environment."""
        self._process.kill()
        await self._again(extra or {}, away=away)

    async def drain(self) -> int:
        """SIGTERM, and a new life; the exit status."""
        self._away = True
        try:
            status = await asyncio.to_thread(self._process.terminate)
        except BaseException:
            self._process.kill()
            self._away = False
            raise
        await self._again({})
        return status

    async def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after some time."""
        self._process.freeze()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._process.thaw()

    async def watch(self) -> None:
        """Start it again whenever it has ended by itself."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if not self._away and not self._process.alive:
                last = self._process.log.read_text(errors="replace").splitlines()[-EXIT_LINES:]
                self.exits.append("\n  ".join([f"{self.name} ended by itself; its last lines:", *last]))
                await self._again({})

    def stop(self) -> None:
        self._away = True
        self._process.kill()

    async def _again(self, extra: dict[str, str], *, away: float = RESTART_SECONDS) -> None:
        self._away = True
        await asyncio.sleep(away)
        self._extra = extra
        self._process = self._spawn()
        self._away = False

    def _spawn(self) -> Process:
        self._lives += 1
        env = {**self._env, **self._extra}
        if self.port:
            env["HANSA_SERVER_PORT"] = str(self.port)
        log = self._stack.folder / f"{self.name}.{self._lives}.log"
        return Process(self.kind, env, log, port=self.port, forked=self._stack.forked)


class Rig:
    """Use `open_rig`."""

    def __init__(self, servers: Servers, stack: Stack, members: list[Member], witness: Path) -> None:
        self.servers = servers
        self.members = members
        self.witness = witness
        self._stack = stack

    def of_kind(self, kind: str) -> list[Member]:
        return [member for member in self.members if member.kind == kind]

    def clients(self) -> list[httpx2.AsyncClient]:
        """A client of each control plane, not yet opened."""
        headers = {"authorization": f"Bearer {self._stack.key}"}
        return [
            httpx2.AsyncClient(
                base_url=f"http://{LOOPBACK}:{member.port}", headers=headers, trust_env=False, verify=False, timeout=REQUEST_SECONDS
            )
            for member in self.of_kind("serve")
        ]

    async def admin(self) -> asyncpg.Connection:
        """A superuser's connection, past every link."""
        return await asyncpg.connect(self._stack.admin_url, timeout=DATABASE_SECONDS)

    def server_pid(self, server: str) -> int:
        """The process of `postgres` or `nats`; 0 while it is down."""
        try:
            return int((self.servers.folder.run / f"{server}.pid").read_text())
        except FileNotFoundError:
            return 0

    async def whole(self, *kinds: str) -> None:
        """Wait until the servers are up, and the members of these kinds, or all."""
        await self.servers.nats.ready()
        await self.servers.postgres.ready()
        await asyncio.gather(*(member.ready() for member in self.members if not kinds or member.kind in kinds))


@asynccontextmanager
async def open_rig(folder: Path, *, forked: bool) -> AsyncIterator[Rig]:
    """Start everything over `folder`."""
    witness = folder / "witness.jsonl"
    witness.touch()
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(embedded_servers(folder / "data", patience=NEVER_GIVEN_UP))
        platform = Stack(servers, folder, forked=forked)
        await asyncio.to_thread(platform.migrate)
        members: list[Member] = []
        stack.push_async_callback(asyncio.to_thread, _stop, members)
        for kind, number in (("serve", 1), ("serve", 2), ("worker", 1), ("worker", 2)):
            links = {
                "postgres": await stack.enter_async_context(Link(servers.postgres.port)),
                "nats": await stack.enter_async_context(Link(servers.nats.port)),
            }
            env = _environment(servers, links, witness)
            members.append(Member(kind, platform, number=number, env=env, links=links))
        rig = Rig(servers, platform, members, witness)
        await rig.whole()
        yield rig


def _environment(servers: Servers, links: dict[str, Link], witness: Path) -> dict[str, str]:
    url = urlsplit(servers.postgres.url(password=True))
    login = url.netloc.rpartition("@")[0]
    places = Places(
        servers.folder,
        url._replace(netloc=f"{login}@{LOOPBACK}:{links['postgres'].port}").geturl(),
        f"nats://{LOOPBACK}:{links['nats'].port}",
        str(servers.nats.credentials_file),
        str(servers.nats.operator_file),
    )
    path = os.pathsep.join(filter(None, (str(DOUBLES), os.environ.get("PYTHONPATH"))))
    return for_processes({**os.environ, **SETTINGS, "PYTHONPATH": path, "HANSA_TOOL_WITNESS": str(witness)}, places)


def _stop(members: Iterable[Member]) -> None:
    for member in members:
        member.stop()
