"""What the branches of one run wait for, and whether any of them still has something to do.

Counts who is busy: the run itself, and each branch of a gather. When nobody is and something is waited for, the run has no use for
its worker. Pure bookkeeping: no clock, no I/O.
"""

import asyncio
from collections.abc import Callable
from typing import Any

Result = tuple[str, Any]
"""Type and data of the event that ended a wait."""


class Waiting:
    """Waits of one run. `on_idle` is called when nothing is left but waiting."""

    def __init__(self, on_idle: Callable[[], None]) -> None:
        self._on_idle = on_idle
        self._busy = 1
        self._open: dict[str, asyncio.Future[Result]] = {}

    @property
    def idle(self) -> bool:
        """Whether all that is left is waiting."""
        return self._busy == 0 and bool(self._open)

    def steps(self) -> list[str]:
        """What is waited for."""
        return list(self._open)

    def enter(self, count: int = 1) -> None:
        """So many more are busy."""
        self._busy += count

    def leave(self, count: int = 1) -> None:
        """So many are done, or wait."""
        self._busy -= count
        if self.idle:
            self._on_idle()

    async def until(self, step: str) -> Result:
        """Wait for what `deliver` brings for a step."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._open[step] = future
        self.leave()
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled():
                self.enter()  # what was cancelled goes on, to its end
            raise
        finally:
            self._open.pop(step, None)

    def deliver(self, step: str, result: Result) -> None:
        """Let a waiting branch go on; nothing if it does not wait, or no more."""
        future = self._open.get(step)
        if future is not None and not future.done():
            self.enter()
            future.set_result(result)


class Branches:
    """The busy count of one gather: the caller's place is lent to the branches, and the last one gives it back."""

    def __init__(self, waiting: Waiting, count: int) -> None:
        self._waiting = waiting
        self._held = count
        waiting.enter(count - 1)

    def done(self) -> None:
        """A branch has come to its end; the last one keeps its place, for the caller goes on with it."""
        if self._held > 1:
            self._held -= 1
            self._waiting.leave()

    def close(self) -> None:
        """All branches are over, however they ended: the caller goes on alone."""
        self._waiting.leave(self._held - 1)
        self._held = 1
