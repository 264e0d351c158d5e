"""The loop: how often it looks, what wakes it, how it ends, and what it says of itself."""

import asyncio
import time
from collections.abc import Callable

import pytest

from hansa.apply.repository.failures import Reason
from hansa.apply.sync import service as service_module
from hansa.apply.sync.model import CONTROL_PLANE_AWAY, FAILING, SYNCED, Record, Report
from hansa.apply.sync.service import Pace, Service


class Passes:
    """Says what it is told to, and remembers when it was asked, and for how much."""

    def __init__(self, state: str = SYNCED) -> None:
        self.state = state
        self.asked: list[tuple[float, bool]] = []

    async def once(self, *, full: bool = False) -> Report:
        self.asked.append((time.monotonic(), full))
        return Report(record=Record(origin="o", state=self.state))


def made(passes: Passes, interval: float = 60.0, resync: float = 600.0) -> Service:
    return Service(passes, Pace(interval, resync), drawn=lambda: 0.5)


async def running(service: Service, until: Callable[[], bool]) -> None:
    """Let it run until something is so, and end it."""
    stopping = asyncio.Event()
    task = asyncio.create_task(service.run(stopping, lambda report: None))
    async with asyncio.timeout(10):
        while not until():
            await asyncio.sleep(0.005)
        stopping.set()
        await task


async def test_it_looks_at_once_when_it_is_told_that_something_is_new_and_many_calls_are_one_look() -> None:
    passes = Passes()
    service = made(passes)
    stopping = asyncio.Event()
    task = asyncio.create_task(service.run(stopping, lambda report: None))
    await asyncio.sleep(0.05)
    for _ in range(100):
        service.news.set()
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.3)
    stopping.set()
    await task
    assert 2 <= len(passes.asked) <= 30
    gaps = [after - before for (before, _), (after, _) in zip(passes.asked, passes.asked[1:], strict=False)]
    assert min(gaps) >= service_module.SHORTEST_PAUSE * 0.9


async def test_everything_is_applied_again_now_and_then() -> None:
    passes = Passes()
    await running(made(passes, interval=0.01, resync=0.1), lambda: sum(full for _, full in passes.asked) >= 2)
    assert not passes.asked[0][1]
    assert sum(full for _, full in passes.asked) < len(passes.asked) / 2


@pytest.mark.parametrize(("state", "longer"), [(SYNCED, False), (FAILING, False), (CONTROL_PLANE_AWAY, True), (Reason.UNREACHABLE, True)])
async def test_what_is_away_is_asked_less_and_less_often_and_what_fails_at_each_interval(state: str, *, longer: bool) -> None:
    passes = Passes(state)
    service = made(passes, interval=10.0)
    for _ in range(4):
        stopping = asyncio.Event()
        task = asyncio.create_task(service.run(stopping, lambda report: None))
        await asyncio.sleep(0)
        stopping.set()
        await task
    assert (service.pause() > 100) == longer
    assert service.pause() <= service_module.LONGEST_PAUSE * 1.1


async def test_a_pass_that_hangs_is_seen_and_ready_means_that_one_has_ended() -> None:
    class Hanging(Passes):
        async def once(self, *, full: bool = False) -> Report:
            await asyncio.sleep(60)
            raise AssertionError

    service = Service(Hanging(), Pace(stuck=0.1), drawn=lambda: 0.5)
    task = asyncio.create_task(service.run(asyncio.Event(), lambda report: None))
    await asyncio.sleep(0.01)
    assert (service.is_alive, service.is_ready) == (True, False)
    await asyncio.sleep(0.2)
    assert not service.is_alive
    task.cancel()
    passes = Passes()
    service = made(passes)
    await running(service, lambda: service.is_ready)
    passes.state = CONTROL_PLANE_AWAY
    await running(service, lambda: not service.is_ready)
