"""A stack seen from outside: start one in the background, stop it, say how it is.

Must not know what runs in it. Warning: whether one runs is told by the folder's lock alone; files may be stale.
"""

import asyncio
import contextlib
import os
import signal
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import msgspec

from hansa import clock
from hansa.dev import processes
from hansa.dev.failures import FolderInUse, NotReady, ServerDied
from hansa.dev.folder import DataFolder, Holder, ReadyFile, in_use, reaching
from hansa.dev.invocation import FAILED, command_line
from hansa.dev.supervisor import died, open_log, read_states, tail
from hansa.dev.up import UpOptions

LOG = "up"
MARGIN_SECONDS = 60.0
"""What PostgreSQL (initdb, recovery) and migrations may take, on top of what the control plane may."""
KILLED_SECONDS = 5.0
DYING_SECONDS = 1.0


class Down(StrEnum):
    """How `down` went."""

    NOT_RUNNING = "was not running"
    STOPPED = "stopped"
    KILLED = "killed"


class ChildStatus(msgspec.Struct, frozen=True):
    """One process: seconds since its last start, how often it was started again, resident bytes."""

    name: str
    pid: int
    alive: bool
    uptime: float
    restarts: int
    rss: int


class Status(msgspec.Struct, frozen=True):
    """A stack: `running` once its folder is held, `ready` once it serves at `url`."""

    running: bool
    ready: bool
    pid: int
    url: str
    rss: int
    started_at: datetime | None
    children: tuple[ChildStatus, ...]


async def detach(options: UpOptions, argv: tuple[str, ...] = ()) -> ReadyFile:
    """Start a stack that outlives us, by default as small a process as can be; returns when it is ready.

    Raises `FolderInUse`, `FolderUnreachable`, `NotReady`, or `ServerDied` with what it said and its exit status. When we are
    cancelled before, it is stopped.
    """
    folder = DataFolder(options.data)
    folder.make()
    holder = folder.holder()
    # One that was just killed may hold the lock for a moment more.
    if holder is not None and not await _released(folder, holder, seconds=DYING_SECONDS):
        raise in_use(folder)
    log = folder.log(LOG)
    pid, since = _spawn(argv or command_line(options), env=dict(options.environ), log=log, folder=folder)
    try:
        return await _ready(folder, pid, since=since, seconds=options.ready_seconds + MARGIN_SECONDS)
    except asyncio.CancelledError:
        await _end(pid, seconds=options.grace_seconds + KILLED_SECONDS)
        raise


async def _ready(folder: DataFolder, pid: int, *, since: int, seconds: float) -> ReadyFile:
    log, deadline = folder.log(LOG), clock.monotonic() + seconds
    while clock.monotonic() < deadline:
        ready = folder.read_ready()
        if ready is not None and ready.pid == pid:
            return ready
        ended = _exit_status(pid)
        if ended is not None:
            raise _failure(ended, log, since=since)
        await asyncio.sleep(processes.POLL_SECONDS)
    raise NotReady(
        f"not ready yet, and still trying; the last lines of its log:\n{tail(log, since=since)}", hint=f"Watch {log}, or run `hansa down`."
    )


def _failure(status: int, log: Path, *, since: int) -> ServerDied:
    """What the process that ended would have said and left as its exit status, had it run in the foreground."""
    said = log.read_bytes()[since:].decode(errors="replace")
    detail, _, hint = said.rpartition(FAILED)[2].removesuffix("\n").rpartition("\n")
    if FAILED not in said:
        detail, hint = f"`hansa up` {died(status)}; its last lines:\n{tail(log, since=since)}", f"The whole log is {log}."
    failure = ServerDied(detail, hint=hint)
    failure.exit_code = status if status > 0 else 128 - status
    return failure


async def _end(pid: int, *, seconds: float) -> None:
    """Stop a process of ours and all that it started; after `seconds` by SIGKILL, which its children die of as well."""
    deadline = clock.monotonic() + seconds
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        while _exit_status(pid) is None:
            if clock.monotonic() >= deadline:
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(processes.POLL_SECONDS)


async def down(data: Path, *, grace: float = 60.0) -> Down:
    """Stop a stack and wait until it is gone; after `grace` seconds by SIGKILL, which the next start recovers from."""
    folder = DataFolder(data)
    holder = folder.holder()
    if holder is None:
        return Down.NOT_RUNNING
    if not processes.is_alive(holder.pid, holder.tick):
        raise FolderInUse(
            f"the data folder {folder.path} is in use by a process that can't be seen from here",
            hint="It runs in another container or on another machine: stop it there.",
        )
    with reaching(folder.path):
        processes.send(holder.pid, holder.tick, signal=signal.SIGTERM)
        if await _released(folder, holder, seconds=grace):
            return Down.STOPPED
        processes.send(holder.pid, holder.tick, signal=signal.SIGKILL)
    for state in read_states(folder.run):
        # Each ends with its supervisor; here we only wait for it.
        await processes.wait_gone(state.pid, state.tick, seconds=KILLED_SECONDS)
    await _released(folder, holder, seconds=KILLED_SECONDS)
    return Down.KILLED


def status(data: Path) -> Status:
    """How a stack is; `running` is False when there is none, or no folder."""
    folder = DataFolder(data)
    holder = folder.holder()
    if holder is None:
        return Status(running=False, ready=False, pid=0, url="", rss=0, started_at=None, children=())
    ready = folder.read_ready()
    now = clock.now()
    children: list[ChildStatus] = []
    for state in read_states(folder.run):
        alive = state.pid > 0 and processes.is_alive(state.pid, state.tick)
        children.append(
            ChildStatus(
                name=state.name,
                pid=state.pid,
                alive=alive,
                uptime=(now - state.started_at).total_seconds() if alive else 0.0,
                restarts=state.restarts,
                rss=processes.rss_bytes(state.pid) if alive else 0,
            )
        )
    return Status(
        running=True,
        ready=ready is not None,
        pid=holder.pid,
        url=ready.url if ready else "",
        rss=processes.rss_bytes(holder.pid),
        started_at=ready.started_at if ready else None,
        children=tuple(children),
    )


async def _released(folder: DataFolder, holder: Holder, *, seconds: float) -> bool:
    deadline = clock.monotonic() + seconds
    while folder.holder() == holder:
        if clock.monotonic() >= deadline:
            return False
        await asyncio.sleep(processes.POLL_SECONDS)
    return True


def _exit_status(pid: int) -> int | None:
    ended, encoded = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(encoded) if ended else None


def _spawn(argv: tuple[str, ...], *, env: dict[str, str], log: Path, folder: DataFolder) -> tuple[int, int]:
    """Start it; its process and where in the log its lines begin."""
    # posix_spawn, not asyncio or subprocess: both end, or complain about, a process that is meant to outlive them.
    with reaching(folder.path), open_log(log) as output:
        since = output.tell()
        pid = os.posix_spawnp(
            argv[0],
            argv,
            env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
            ],
            setsid=True,
        )
    return pid, since
