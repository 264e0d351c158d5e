"""Keeps named processes running: starts, logs, restarts with growing pauses, gives up with a reason, stops in reverse order.

Must not know what the processes are. Warning: whoever was started last is stopped first, so start what others depend on first.
"""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import IO, Self

import msgspec

from hansa import clock
from hansa.dev import launch, processes
from hansa.dev.failures import NotReady, ServerDied
from hansa.dev.folder import DataFolder
from hansa.dev.launch import Launch
from hansa.errors import HansaError

EX_CONFIG = 78
LOG_BYTES = 10_000_000
ORPHAN_SECONDS = 5.0
TAIL_LINES = 10
TAIL_BYTES = 8192

Report = Callable[[str, str], None]
"""Told of every step: the stage (a process's name, mostly) and what happened, for people."""


async def nothing() -> None:
    """The preparation of a process that needs none."""


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """A process to keep running. `prepare` runs before each start; it is stopped by `stop_signal`, after `grace` seconds by SIGKILL."""

    name: str
    launch: Launch
    stop_signal: int = signal.SIGTERM
    grace: float = 10.0
    prepare: Callable[[], Awaitable[None]] = nothing


class Patience(msgspec.Struct, frozen=True):
    """When a process is restarted and when it is given up; all in seconds but `deaths`."""

    first_pause: float = 0.1
    longest_pause: float = 5.0
    settled: float = 30.0
    """A life this long makes the next pause the first one again."""
    quick: float = 2.0
    """A life shorter than this counts as a quick death."""
    deaths: int = 5
    """That many quick deaths in a row, and the process is given up."""


class ChildState(msgspec.Struct, frozen=True):
    """run/NAME.json: the process as others find it; pid 0 while it is down. `death_signal` ends it when it was left behind."""

    name: str
    pid: int
    tick: int
    started_at: datetime
    restarts: int
    death_signal: int


class Supervisor:
    """Owns its processes: none of them is left when `async with` ends, nor any that an earlier supervisor of the folder left behind."""

    def __init__(self, folder: DataFolder, *, report: Report, patience: Patience | None = None) -> None:
        self._folder = folder
        self._report = report
        self._patience = patience or Patience()
        self._groups: list[list[_Kept]] = []
        self._failure: BaseException | None = None
        self._failed = asyncio.Event()

    async def __aenter__(self) -> Self:
        await _end_orphans(self._folder.run)
        return self

    async def __aexit__(self, *_: object) -> None:
        for group in reversed(self._groups):
            await asyncio.gather(*(kept.stop() for kept in group))

    async def start(self, *children: Child) -> None:
        """Start processes that are alike, and later stop them together. Returns at once; see `until` for when they are ready."""
        group = [_Kept(child, folder=self._folder, report=self._report, patience=self._patience) for child in children]
        self._groups.append(group)
        for kept in group:
            kept.begin(self._notice)

    async def until(self, ready: Callable[[], Awaitable[bool]], *, name: str, seconds: float) -> None:
        """Wait until `ready`. Raises what made a process be given up meanwhile, or `NotReady` with the log of `name`."""
        deadline = clock.monotonic() + seconds
        while not await self._unless_failed(ready):
            if clock.monotonic() >= deadline:
                raise NotReady(
                    f"{name} was not ready after {seconds:g} seconds; its last lines:\n{tail(self._folder.log(name))}",
                    hint=f"The whole log is {self._folder.log(name)}.",
                )
            await asyncio.sleep(processes.POLL_SECONDS)

    async def stop(self, name: str) -> None:
        """Stop one process for good."""
        for group in self._groups:
            for kept in [one for one in group if one.child.name == name]:
                await kept.stop()
                group.remove(kept)

    async def failure(self) -> None:
        """Returns never: raises what made a process be given up, as soon as there is one."""
        await self._failed.wait()
        self._raise_failure()

    def hurry(self) -> None:
        """Grant no more grace."""
        for group in self._groups:
            for kept in group:
                kept.hurry()

    async def _unless_failed(self, ready: Callable[[], Awaitable[bool]]) -> bool:
        # A probe may hang for as long as its time-out, say on a socket that nobody serves any more.
        asking = asyncio.ensure_future(ready())
        failing = asyncio.create_task(self._failed.wait(), name="failure")
        try:
            await asyncio.wait({asking, failing}, return_when=asyncio.FIRST_COMPLETED)
            self._raise_failure()
            return await asking
        finally:
            asking.cancel()
            failing.cancel()
            await asyncio.wait({asking, failing})

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _notice(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and self._failure is None:
            self._failure = error
            self._failed.set()


class _Kept:
    """One process through all its lives."""

    def __init__(self, child: Child, *, folder: DataFolder, report: Report, patience: Patience) -> None:
        self.child = child
        self._folder = folder
        self._report = report
        self._patience = patience
        self._process: Process | None = None
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._restarts = 0
        self._task: asyncio.Task[None] | None = None

    def begin(self, notice: Callable[[asyncio.Task[None]], None]) -> None:
        """Start the first life."""
        self._task = asyncio.create_task(self._keep(), name=f"keep {self.child.name}")
        self._task.add_done_callback(notice)

    def hurry(self) -> None:
        """Let a stop end now."""
        self._hurry.set()

    async def stop(self) -> None:
        """End it: by its stop signal, and by SIGKILL when that takes too long."""
        self._stopping.set()
        if self._task is None:
            return
        self._signal(self.child.stop_signal)
        hurry = asyncio.create_task(self._hurry.wait(), name=f"hurry {self.child.name}")
        try:
            await asyncio.wait({self._task, hurry}, timeout=self.child.grace, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurry.cancel()
            self._signal(signal.SIGKILL)
            await asyncio.wait({self._task})
            self._state_path().unlink(missing_ok=True)

    async def _keep(self) -> None:
        patience, pause, quick = self._patience, 0.0, 0
        while not self._stopping.is_set():
            await self.child.prepare()
            born = clock.monotonic()
            status = await self._live()
            if self._stopping.is_set():
                return
            life = clock.monotonic() - born
            quick = quick + 1 if life < patience.quick else 0
            if status == EX_CONFIG or quick >= patience.deaths:
                raise self._given_up(status, quick)
            fresh = life >= patience.settled or pause == 0
            pause = patience.first_pause if fresh else min(pause * 2, patience.longest_pause)
            self._report(self.child.name, f"{died(status)}; starting it again in {pause:.1f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            self._restarts += 1

    async def _live(self) -> int:
        try:
            with open_log(self._folder.log(self.child.name)) as log:
                process = await launch.start(self.child.launch, output=log)
        except OSError as error:
            raise ServerDied(f"{self.child.name} can't be started: {error}", hint="Install Hansa anew: a program is missing.") from error
        self._process = process
        self._write_state(process.pid)
        if self._stopping.is_set():
            self._signal(self.child.stop_signal)
        status = await process.wait()
        self._process = None
        self._write_state(0)
        return status

    def _signal(self, number: int) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)

    def _given_up(self, status: int, quick: int) -> HansaError:
        log = self._folder.log(self.child.name)
        how = f"{died(status)}, {quick} times in a row" if quick > 1 else died(status)
        return ServerDied(f"{self.child.name} {how}; its last lines:\n{tail(log)}", hint=f"The whole log is {log}.")

    def _state_path(self) -> Path:
        return self._folder.run / f"{self.child.name}.json"

    def _write_state(self, pid: int) -> None:
        pid_path = self._folder.run / f"{self.child.name}.pid"
        if pid:
            self._write(pid_path, f"{pid}\n".encode())
        else:
            pid_path.unlink(missing_ok=True)
        state = ChildState(
            name=self.child.name,
            pid=pid,
            tick=processes.start_tick(pid) or 0,
            started_at=clock.now(),
            restarts=self._restarts,
            death_signal=self.child.launch.death_signal,
        )
        self._write(self._state_path(), msgspec.json.encode(state))

    def _write(self, path: Path, content: bytes) -> None:
        # Not synced, unlike the folder's own files: after a power loss these processes are gone anyway.
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(content)
        part.replace(path)


def read_states(run: Path) -> list[ChildState]:
    """What a supervisor has written of its processes, by name."""
    states: list[ChildState] = []
    for path in sorted(run.glob("*.json")):
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            states.append(msgspec.json.decode(path.read_bytes(), type=ChildState))
    return states


async def _end_orphans(run: Path) -> None:
    for state in read_states(run):
        processes.send(state.pid, state.tick, signal=state.death_signal)
        if not await processes.wait_gone(state.pid, state.tick, seconds=ORPHAN_SECONDS):
            processes.send(state.pid, state.tick, signal=signal.SIGKILL)
            await processes.wait_gone(state.pid, state.tick, seconds=ORPHAN_SECONDS)
    _clear(run)


def _clear(run: Path) -> None:
    for left in [*run.glob("*.json"), *run.glob("*.pid"), *run.glob(".*.part")]:
        left.unlink(missing_ok=True)


def open_log(path: Path) -> IO[bytes]:
    """A log to append to; an old one that has grown too large is put aside, replacing the one before it."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
    return path.open("ab")


def tail(path: Path, *, since: int = 0) -> str:
    """The last lines of a log, for people; none that stand before the byte `since`."""
    try:
        with path.open("rb") as log:
            log.seek(max(since, path.stat().st_size - TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return "  (no log)"
    return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:]) or "  (the log is empty)"


def died(status: int) -> str:
    """How a process ended, for people."""
    if status >= 0:
        return f"ended with exit status {status}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-status).name}"
    return f"was killed by signal {-status}"
