"""An event loop without a clock, I/O or threads: time jumps to the next timer, and what is ready runs in an order drawn from a seed.

Callbacks belong to a simulated process, by the context they run in: those of a process that does not live are kept back. The same
seed gives the same order, in every process of the system.
"""

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from functools import partial
from random import Random
from typing import Any

MAX_STEPS = 200_000
"""More is a loop that makes no progress."""


class Ready(asyncio.TimerHandle):
    """A callback that is to run: a handle with as little in it as asyncio asks of one, for most of a world's time goes into these."""

    __slots__ = ("is_cancelled", "process", "work")

    def __init__(self, when: float, work: Callable[[], object], process: "Process | None") -> None:
        self._when = when
        self.work = work
        self.process = process
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled


class Process:
    """A simulated process: while it is frozen, or once it is dead, nothing of it runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen = False
        self.kept: list[Ready] = []

    @property
    def runs(self) -> bool:
        return not self.dead and not self.frozen


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class Livelock(Exception):
    """The world did not come to rest."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs one callback after the other. `faults`: what happens between two callbacks, by the number of those that have run."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.random = random
        self.steps = 0
        self.faults: dict[int, Callable[[], None]] = {}
        self.outside = copy_context()
        """Belongs to no process."""
        self._virtual = 0.0
        self._coming: list[Ready] = []
        self._timers: list[tuple[float, int, Ready]] = []
        self._timer_count = 0
        self._tasks: list[tuple[asyncio.Task[Any], Process | None]] = []
        self.set_task_factory(self._task)

    def time(self) -> float:
        return self._virtual

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        found = copy_context() if context is None else context
        ready = Ready(0.0, partial(found.run, callback, *args), found.get(PROCESS))
        self._coming.append(ready)
        return ready

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        return self.call_at(self._virtual + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        found = copy_context() if context is None else context
        ready = Ready(when, partial(found.run, callback, *args), found.get(PROCESS))
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, ready))
        return ready

    def _task(self, loop: asyncio.AbstractEventLoop, work: Any, context: Context | None = None) -> "asyncio.Task[Any]":
        task = asyncio.Task(work, loop=self, context=context)
        self._tasks.append((task, PROCESS.get() if context is None else context.get(PROCESS)))
        return task

    def end(self) -> None:
        """Cancel what is left of every task and close: nothing may be awaited after that."""
        for _ in range(20):
            left = [task for task, _ in self._tasks if not task.done()]
            if not left:
                break
            for task in left:
                task.cancel()
            for process in {process for _, process in self._tasks if process is not None}:
                process.dead = process.frozen = False
                self.wake(process)
            for _ in range(50):
                if self._coming:
                    self.run_until_complete(self._breathe())
        self.close()

    async def _breathe(self) -> None:
        await asyncio.sleep(0)

    def spawn(self, process: Process | None, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """A task of a process."""
        context = self.outside.copy()
        context.run(PROCESS.set, process)
        return self.create_task(work, name=name, context=context)

    def wake(self, process: Process) -> None:
        """Let run what was kept back."""
        self._coming.extend(process.kept)
        process.kept = []

    def _run_once(self) -> None:
        """What `run_forever` calls: everything that is ready now, in a drawn order; or time goes on."""
        if not self._coming:
            self._pass_time()
        ready, self._coming = self._coming, []
        if len(ready) > 1:
            ready.sort(key=self._drawn)
        for each in ready:
            if each.is_cancelled:
                continue
            process = each.process
            if process is not None and (process.dead or process.frozen):
                process.kept.append(each)
                continue
            self.steps += 1
            each.work()
            if self.steps in self.faults:
                self.faults[self.steps]()
        if self.steps > MAX_STEPS:
            raise Livelock(f"{self.steps} callbacks have run by {self._virtual:.1f} s")

    def _drawn(self, _: Ready) -> float:
        return self.random.random()

    def _pass_time(self) -> None:
        timers = self._timers
        while timers:
            when, _, ready = heapq.heappop(timers)
            if ready.is_cancelled:
                continue
            self._virtual = max(self._virtual, when)
            self._coming.append(ready)
            while timers and timers[0][0] <= self._virtual:
                self._coming.append(heapq.heappop(timers)[2])
            return
        raise Livelock("nothing is left to happen, and the world has not ended")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is passed over when its time comes."""

    def task_names(self) -> list[tuple[str, Process | None]]:
        """Tasks that are not done, each with its process."""
        return [(task.get_name(), process) for task, process in self._tasks if not task.done()]
