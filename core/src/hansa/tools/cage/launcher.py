"""Starts one program in a cage and watches it from outside: output, time, memory, processes, disk. Then all of it is killed.

A process of its own beside the worker, which reads an order (a line of JSON) from its input and writes what came of it to its output.
Its input stays open as long as the worker wants the answer. Standard library only.
"""

import contextlib
import json
import os
import select
import signal
import stat
import sys
import time
from typing import Any, NamedTuple

from hansa.tools.cage import kernel
from hansa.tools.cage.disk import disk_usage
from hansa.tools.cage.inside import NOBODY, Cage
from hansa.tools.cage.order import Ended, Order

WATCH_SECONDS = 0.05
DISK_SECONDS = 0.25
_PIECE = 65_536
_PAGE = os.sysconf("SC_PAGE_SIZE")
_OURS = 2
"""Processes of every cage that are not the program's."""


class _Pipes(NamedTuple):
    """What the cage says, and what is at its other ends."""

    stdout: int
    stderr: int
    report: int

    @classmethod
    def make(cls) -> "tuple[_Pipes, _Pipes]":
        pairs = [os.pipe() for _ in cls._fields]
        return cls(*(read for read, _ in pairs)), cls(*(write for _, write in pairs))


class Watch:
    """One caged program under watch."""

    def __init__(self, order: Order, pipes: _Pipes) -> None:
        self._order = order
        self._pipes = pipes
        self._heard: dict[int, bytearray] = {pipe: bytearray() for pipe in pipes}
        self._begun: float | None = None
        self._disk_at = 0.0
        self._stopped = ""

    def until_ended(self) -> Ended:
        """Watch until the program has ended or has had too much, then leave nothing of it."""
        poll = select.poll()
        for pipe in (*self._pipes, 0):
            poll.register(pipe, select.POLLIN)
        left = set(self._pipes)
        while left and not self._stopped and not self._has_status():
            for pipe, _ in poll.poll(WATCH_SECONDS * 1000):
                data = os.read(pipe, _PIECE)
                if pipe == 0:
                    self._stopped = self._stopped or "canceled"
                elif data:
                    self._heard[pipe] += data
                else:
                    poll.unregister(pipe)
                    left.discard(pipe)
            self._stopped = self._stopped or self._too_much()
        seconds = time.monotonic() - (self._begun or time.monotonic())
        kill_all()
        self._read_rest(left)
        return self._ended(seconds)

    def _has_status(self) -> bool:
        return b'"status"' in self._heard[self._pipes.report]

    def _too_much(self) -> str:
        bounds, now = self._order.bounds, time.monotonic()
        # Its time begins when it does: a busy machine may be slow to build a cage.
        if self._begun is None and b'"layers"' in self._heard[self._pipes.report]:
            self._begun = now
        if self._begun is not None and now - self._begun > bounds.seconds:
            return "time"
        if sum(len(self._heard[pipe]) for pipe in self._pipes[:2]) > bounds.output_bytes:
            return "output"
        found = descendants(os.getpid())
        # Its bound is kept by the kernel, except with root in some containers; hence some room.
        if len(found) > 2 * (bounds.processes + _OURS):
            return "processes"
        if sum(map(_resident, found)) > bounds.memory:
            return "memory"
        if now >= self._disk_at:
            used = disk_usage(self._order.workspace, found, bounds)
            self._disk_at = now + max(DISK_SECONDS, 10 * (time.monotonic() - now))
            return "disk" if used > bounds.disk_bytes else ""
        return ""

    def _read_rest(self, pipes: set[int]) -> None:
        """What was written before the end; nobody writes any more."""
        most = self._order.bounds.output_bytes
        for pipe in pipes:
            while len(self._heard[pipe]) <= most and (data := os.read(pipe, _PIECE)):
                self._heard[pipe] += data
        if not self._stopped and sum(len(self._heard[pipe]) for pipe in self._pipes[:2]) > most:
            self._stopped = "output"

    def _ended(self, seconds: float) -> Ended:
        said: dict[str, Any] = {}
        for line in bytes(self._heard[self._pipes.report]).splitlines():
            said.update(json.loads(line))
        trouble = str(said.get("trouble", ""))
        if said.get("missing"):
            trouble = f"this machine does not hold {', '.join(said['missing'])}"
        if not trouble and not self._stopped and "layers" not in said:
            trouble = "it ended on the way in"
        if not self._stopped and said.get("signal") == signal.SIGXCPU:
            self._stopped = "time"
        stdout, stderr = (self._text(pipe) for pipe in self._pipes[:2])
        return Ended(
            layers=list(said.get("layers", ())),
            trouble=trouble,
            status=int(said.get("status", 0)),
            signal=int(said.get("signal", 0)),
            stopped=self._stopped,
            stdout=stdout,
            stderr=stderr,
            seconds=round(seconds, 3),
        )

    def _text(self, pipe: int) -> str:
        return bytes(self._heard[pipe][: self._order.bounds.output_bytes]).decode(errors="replace")


def main() -> None:
    """One order, one program, one answer."""
    order = Order.read(json.loads(sys.stdin.buffer.readline()))
    kernel.adopt_orphans()
    if os.geteuid() == 0:
        hand_over(order.workspace)
    outside, inside = _Pipes.make()
    if not os.fork():
        _begin(order, inside)
    for pipe in (*inside, *([order.hatch] if order.hatch >= 0 else [])):
        os.close(pipe)
    ended = Watch(order, outside).until_ended()
    sys.stdout.write(json.dumps(ended._asdict()))
    sys.stdout.flush()


def _begin(order: Order, pipes: _Pipes) -> None:
    source = os.memfd_create("input", os.MFD_CLOEXEC)
    os.write(source, order.stdin.encode(errors="replace"))
    os.lseek(source, 0, os.SEEK_SET)
    for number, place in ((source, 0), (pipes.stdout, 1), (pipes.stderr, 2)):
        os.dup2(number, place)
    Cage(order, pipes.report).enter()


def kill_all() -> None:
    """Kill every descendant, also those that left their group or session, until there is none."""
    while True:
        for process in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            time.sleep(0.001)
        except ChildProcessError:
            return


def descendants(process: int) -> list[int]:
    """All processes that a process has begun, and those that they have."""
    found: list[int] = []
    todo = [process]
    while todo:
        parent = todo.pop()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as file:
                    children = [int(each) for each in file.read().split()]
                found += children
                todo += children
    return found


def _resident(process: int) -> int:
    """Bytes of memory that a process has, what it shares with others included."""
    try:
        with open(f"/proc/{process}/statm") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def hand_over(folder: str) -> None:
    """As root: give a workspace and what root has written there to the user that the program will be."""
    os.chown(folder, NOBODY, NOBODY)
    for _, folders, files, place in os.fwalk(folder, follow_symlinks=False):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                status = os.stat(name, dir_fd=place, follow_symlinks=False)
                # A second name may be one of a file that is elsewhere.
                if status.st_uid == 0 and (stat.S_ISDIR(status.st_mode) or status.st_nlink == 1):
                    os.chown(name, NOBODY, NOBODY, dir_fd=place, follow_symlinks=False)
