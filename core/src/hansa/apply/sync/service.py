"""Passes one after another until told to stop: at an interval, at once when somebody says that something is new, all of it now and then.

Must not know what a pass does, nor who says that something is new.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import msgspec

from hansa import clock
from hansa.apply.repository.failures import Reason
from hansa.apply.sync.model import CONTROL_PLANE_AWAY, REFUSED, Report

SHORTEST_PAUSE = 0.2
"""Seconds between two passes, however often somebody says that something is new."""
LONGEST_PAUSE = 300.0
"""Seconds between two passes while repository or control plane are away, unless the interval is longer."""
_AWAY = frozenset(
    {CONTROL_PLANE_AWAY, REFUSED, *(str(reason) for reason in (Reason.UNREACHABLE, Reason.DENIED, Reason.GONE, Reason.DAMAGED))}
)


class Pace(msgspec.Struct, frozen=True):
    """Seconds between looks; between passes that apply everything again, which mends what others changed; and of one pass, after which
    the process is no longer alive."""

    interval: float = 60.0
    resync: float = 600.0
    stuck: float = 900.0


class Passes(Protocol):
    """What is done again and again."""

    async def once(self, *, full: bool = False) -> Report: ...


class Service:
    """The loop, and how it is. `news` is set by whoever knows that something is new."""

    def __init__(self, passes: Passes, pace: Pace, *, drawn: Callable[[], float]) -> None:
        self._passes = passes
        self._pace = pace
        self._drawn = drawn
        self._begun: float | None = None
        self._failures = 0
        self.news = asyncio.Event()
        self.report: Report | None = None

    @property
    def is_alive(self) -> bool:
        """Whether no pass hangs."""
        return self._begun is None or clock.monotonic() - self._begun < self._pace.stuck

    @property
    def is_ready(self) -> bool:
        """Whether a pass has come to its end, and the control plane lets us in."""
        return self.report is not None and self.report.record.state not in (CONTROL_PLANE_AWAY, REFUSED)

    async def run(self, stopping: asyncio.Event, told: Callable[[Report], None]) -> None:
        """Make passes until `stopping` is set; the one under way is finished. `told` is called after each."""
        resync_at = clock.monotonic() + self._pace.resync * (0.5 + self._drawn())
        while not stopping.is_set():
            self.news.clear()
            self._begun = clock.monotonic()
            full = self._begun >= resync_at
            self.report = await self._passes.once(full=full)
            self._begun = None
            is_away = self.report.record.state in _AWAY
            self._failures = self._failures + 1 if is_away else 0
            if full and not is_away:
                resync_at = clock.monotonic() + self._pace.resync * (0.75 + self._drawn() / 2)
            told(self.report)
            if self.report.overtaken:
                self.news.set()
            await _first_of(stopping, self.news, self.pause())
            if self.news.is_set():
                await _first_of(stopping, stopping, SHORTEST_PAUSE)

    def pause(self) -> float:
        """Seconds until the next look by itself: the interval, longer with each failure, and never quite the same."""
        interval = self._pace.interval
        seconds = min(interval * 2.0 ** min(self._failures, 16), max(interval, LONGEST_PAUSE))
        return seconds * (0.9 + self._drawn() / 5)


async def _first_of(one: asyncio.Event, other: asyncio.Event, seconds: float) -> None:
    waits = [asyncio.ensure_future(each.wait()) for each in (one, other)]
    try:
        with suppress(TimeoutError):
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
