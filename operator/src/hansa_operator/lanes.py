"""Requests that are made together: what is handed in while a request is under way goes into the next one.

Each lane has one request under way at a time, so that a slow one holds up nothing but its own lane. While many come, a lane also waits as
long as its last request took, `PAUSE_SECONDS` at most: a request costs both sides as much as several items. Knows nothing of what is sent.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

FIRST_SECONDS = 0.005
PAUSE_SECONDS = 0.2
Item = TypeVar("Item")
Result = TypeVar("Result")


class Lanes(Generic[Item, Result]):
    """`send(lane, items)` gives a result for each item, in order. What it raises is raised for each of them."""

    def __init__(
        self,
        send: Callable[[str, Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        most: int,
        size: Callable[[Item], int],
        bytes_most: int,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._send = send
        self._most = most
        self._size = size
        self._bytes = bytes_most
        self._pause = pause
        self._waiting: dict[str, list[tuple[Item, asyncio.Future[Result]]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def put(self, lane: str, item: Item) -> Result:
        """Send an item with others of its lane; what became of it."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(lane, []).append((item, future))
        if lane not in self._tasks:
            self._tasks[lane] = asyncio.create_task(self._drive(lane), name=f"lane {lane}")
        return await future

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive(self, lane: str) -> None:
        try:
            # One turn of the loop: all that became ready by the same event have handed in what they have.
            await asyncio.sleep(FIRST_SECONDS)
            while taken := self._take(lane):
                begun = time.monotonic()
                await self._deliver(lane, taken)
                if 0 < len(self._waiting[lane]) < self._most:  # somebody came meanwhile: more are on their way
                    await asyncio.sleep(min(time.monotonic() - begun, self._pause))
        finally:
            del self._tasks[lane]
            for _, future in self._waiting.pop(lane, []):
                future.cancel()

    def _take(self, lane: str) -> list[tuple[Item, asyncio.Future[Result]]]:
        """As many as go into one request; those whom nobody waits for any more are left out."""
        waiting = [each for each in self._waiting.get(lane, []) if not each[1].done()]
        count, total = 0, 0
        for item, _ in waiting[: self._most]:
            total += self._size(item)
            if count and total > self._bytes:
                break
            count += 1
        self._waiting[lane] = waiting[count:]
        return waiting[:count]

    async def _deliver(self, lane: str, taken: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._send(lane, [item for item, _ in taken])
        except asyncio.CancelledError:
            for _, future in taken:
                future.cancel()
            raise
        except Exception as error:  # whatever it is, each of those who wait is told
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(taken, results, strict=True):
            if not future.done():
                future.set_result(result)
