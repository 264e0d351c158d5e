"""The queue of what is to be reconciled: each key once, however often it was asked for; so many at once; later after a failure.

Knows nothing of what is done with a key. A key that is asked for while it is worked on is worked on once more.
"""

import asyncio
import heapq
import logging
import random
from collections.abc import Awaitable, Callable, Iterable

from hansa_operator.errors import Away
from hansa_operator.model import Key

log = logging.getLogger(__name__)

BUSY_SECONDS = 15.0
"""The longest pause after a server was there and had too much to do: nothing else tells when it has less."""
Work = Callable[[Key], Awaitable[float | None]]
"""Does what there is to do for a key; gives the seconds after which it is to be looked at again, or None. What it raises is a failure."""


class WorkQueue:
    """`least` and `most`: seconds of the pause after a first failure, and of the longest one; `busy`: of the longest after a server that
    was there and had too much to do."""

    def __init__(self, work: Work, *, concurrency: int, least: float, most: float, busy: float = BUSY_SECONDS) -> None:
        self._work = work
        self._concurrency = concurrency
        self._least, self._most, self._busy = least, most, busy
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._failures: dict[Key, int] = {}
        self._again: set[Key] = set()
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def depth(self) -> int:
        """How many keys could be worked on now, and are not yet."""
        now = asyncio.get_running_loop().time()
        return sum(due <= now for due in self._due.values())

    @property
    def running(self) -> int:
        """How many are worked on."""
        return len(self._running)

    @property
    def failing(self) -> int:
        """How many keys have failed last time."""
        return len(self._failures)

    def add(self, key: Key, after: float = 0.0) -> None:
        """Have a key worked on after so many seconds, or before that if it was so wanted already. One that has failed keeps its pause."""
        if after <= 0 and key in self._failures and key not in self._running:
            after = self._pause(key)
        self._put(key, after)

    def wake(self, keys: Iterable[Key]) -> None:
        """Have keys worked on now: what they waited for may be there. Their failures are forgotten."""
        for key in keys:
            self._failures.pop(key, None)
            self._put(key, 0.0)

    def wake_failed(self) -> None:
        """All that have failed."""
        self.wake(list(self._failures))

    def forget(self, key: Key) -> None:
        """The key's failures and plans are void."""
        self._failures.pop(key, None)
        self._due.pop(key, None)

    async def run(self) -> None:
        """Work until `close`. Cancelled, it cancels what is under way and waits for that."""
        try:
            while not self._closed:
                pause = self._start()
                self._changed.clear()
                try:
                    async with asyncio.timeout(pause):
                        await self._changed.wait()
                except TimeoutError:
                    pass
        finally:
            if not self._closed:
                await self._stop()

    async def close(self, grace: float) -> None:
        """Start nothing more; give what is under way so many seconds."""
        self._closed = True
        self._changed.set()
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=grace)
        await self._stop()

    async def _stop(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _put(self, key: Key, after: float) -> None:
        if key in self._running and after <= 0:
            self._again.add(key)
            return
        due = asyncio.get_running_loop().time() + max(after, 0.0)
        if key not in self._due or due < self._due[key]:
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))
            self._changed.set()

    def _start(self) -> float | None:
        """Start what is due; the seconds until something else is."""
        now = asyncio.get_running_loop().time()
        while self._heap:
            due, key = self._heap[0]
            if self._due.get(key) != due:
                heapq.heappop(self._heap)
                continue
            if due > now:
                return due - now
            if len(self._running) >= self._concurrency:
                return None
            heapq.heappop(self._heap)
            del self._due[key]
            if key in self._running:
                self._again.add(key)
                continue
            self._running[key] = asyncio.create_task(self._do(key), name=f"reconcile {key}")
        return None

    async def _do(self, key: Key) -> None:
        after: float | None = None
        try:
            after = await self._work(key)
            self._failures.pop(key, None)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a bug in one reconcile must not stop the others
            self._failures[key] = self._failures.get(key, 0) + 1
            after = max(self._pause(key, error), getattr(error, "retry_after", None) or 0.0)
            level = logging.DEBUG if isinstance(error, Away) else logging.WARNING  # who is away is told once, and not by each object
            log.log(
                level, "%s failed for the %s. time, again in %.1f s: %s: %s", key, self._failures[key], after, type(error).__name__, error
            )
        finally:
            del self._running[key]
            self._changed.set()
        if key in self._again:
            self._again.discard(key)
            self._put(key, 0.0 if key not in self._failures else self._least)
        elif after is not None:
            self._put(key, after)

    def _pause(self, key: Key, error: Exception | None = None) -> float:
        # Half of it by chance: what failed together is not tried together.
        most = min(self._most, self._busy) if isinstance(error, Away) and error.busy else self._most
        longest = min(most, self._least * 2 ** min(self._failures[key] - 1, 32))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311
