"""A process that is killed at any await, and the one that comes after it or works beside it: in the end everything is as the files say."""

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from hansa.apply.sync.engine import Sync
from hansa.apply.sync.model import SYNCED, Report
from repository.repos import agent
from sync.plane import Fate, Files, Killed, Plane

BEFORE = {f"f{number}": agent(f"a{number}") for number in range(8)}
AFTER: dict[str, str | None] = {
    "f0": agent("a0", "Other."),
    "f1": None,
    "f2": None,
    "g2": agent("a2") + "---\n" + agent("new"),
    "f3": agent("a3") + "---\n" + agent("a4"),
    "f4": None,
}
EXPECTED = {"a0": "Other.", "a2": "Be brief.", "new": "Be brief.", "a3": "Be brief.", "a4": "Be brief."} | {
    f"a{number}": "Be brief." for number in range(5, 8)
}


async def world(fate: Fate) -> tuple[Files, Plane]:
    files, plane = Files(), Plane()
    files.put(**BEFORE)
    await Sync(files, plane).once()
    files.put(**AFTER)
    plane.log.clear()
    files.fate = plane.fate = fate
    return files, plane


async def steps() -> int:
    fate = Fate()
    files, plane = await world(fate)
    await Sync(files, plane).once()
    return fate.count


def stands(plane: Plane) -> dict[str, str]:
    return {name: plane.text(name) for _, name in plane.objects}


async def test_killed_at_each_await_the_next_process_converges_and_nothing_is_done_twice() -> None:
    count = await steps()
    assert count > 10
    for at in range(count):
        files, plane = await world(Fate(at))
        with pytest.raises(Killed):
            await Sync(files, plane).once()
        assert set(stands(plane)) >= {"a0", "a2", "a3", "a4", "a5"}, f"gone for a moment, killed at {at}"
        files.fate = plane.fate = Fate()
        assert (await Sync(files, plane).once()).record.state == SYNCED
        assert stands(plane) == EXPECTED, f"killed at {at}"
        assert len(plane.log) == len(set(plane.log)), f"killed at {at}: {plane.log}"


async def test_killed_at_each_await_and_taken_back_in_git_nothing_of_it_stays() -> None:
    """The next process finds what was applied whole before the one that was killed."""
    for at in range(await steps()):
        files, plane = await world(Fate(at))
        with pytest.raises(Killed):
            await Sync(files, plane).once()
        files.fate = plane.fate = Fate()
        files.put(g2=None, **BEFORE)
        assert (await Sync(files, plane).once()).record.state == SYNCED
        assert stands(plane) == {f"a{number}": "Be brief." for number in range(8)}, f"killed at {at}"


async def test_killed_again_and_again_it_still_converges() -> None:
    count = await steps()
    for seed in range(30):
        draw = random.Random(seed)
        files, plane = await world(Fate(draw.randrange(count)))
        for _ in range(4):
            with suppress(Killed):
                await Sync(files, plane).once()
            files.fate = plane.fate = Fate(draw.randrange(count))
        files.fate = plane.fate = Fate()
        assert (await Sync(files, plane).once()).record.state == SYNCED
        assert stands(plane) == EXPECTED


async def test_two_at_once_that_see_different_commits_end_alike() -> None:
    for seed in range(30):
        draw = random.Random(seed)
        files, plane = Files(), Plane()
        files.put(**BEFORE)
        one, other = Sync(files, plane), Sync(files, plane)
        await one.once()
        for _ in range(6):
            files.put(**{f"f{draw.randrange(8)}": draw.choice([agent(f"a{draw.randrange(20)}", f"{draw.random()}"), None, "kind: [\n"])})
            await draw.choice([one, other]).once()
        files.put(**BEFORE)
        files.put(**AFTER)
        for sync in (one, other, one, other):
            await sync.once(full=True)
        assert stands(plane) == EXPECTED, seed


class Meanwhile(Fate):
    """Lets something happen at one await."""

    def __init__(self, at: int, work: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self._meanwhile, self._work = at, work

    async def step(self) -> None:
        if self.count == self._meanwhile:
            self.count += 1
            await self._work()
        await super().step()


class Blind(Files):
    """The newest commit is always the one that was looked up first."""

    async def look(self) -> str:
        seen = await super().look()
        self.seen: str = getattr(self, "seen", seen)
        return self.seen


async def overtaken(at: int, kind: type[Files] = Files) -> tuple[Report, Sync, Plane]:
    """Of two processes one does a commit, and at one of its awaits the other does a newer one, whole."""
    files, plane = Files(), Plane()
    files.put(**BEFORE)
    mine = kind(files=files.files, blobs=files.blobs, history=files.history)
    one, other = Sync(mine, plane), Sync(files, plane)
    await one.once()
    await other.once()
    vars(mine).pop("seen", None)
    files.put(**AFTER)
    plane.log.clear()

    async def newer() -> None:
        files.put(f0=agent("a0", "Newest."), f3=None, newer=agent("newer"))
        await other.once()

    mine.fate = plane.fate = Meanwhile(at, newer)
    report = await one.once()
    if mine.fate.count <= at:
        await newer()
    return report, one, plane


NEWEST = {name: text for name, text in EXPECTED.items() if name not in ("a3", "a4")} | {"a0": "Newest.", "newer": "Be brief."}


async def test_who_is_overtaken_by_a_newer_commit_deletes_nothing_of_it_and_puts_right_at_once_what_it_put_back() -> None:
    for at in range(await steps() + 6):
        report, behind, plane = await overtaken(at)
        if report.overtaken:
            report = await behind.once()
        assert (report.overtaken, report.record.state) == (False, SYNCED), at
        assert stands(plane) == NEWEST, at
        assert "deleted agent/newer" not in plane.log, at
        assert plane.log.count("deleted agent/a1") == plane.log.count("deleted agent/a2") + 1 == 1, at


async def test_who_does_not_look_again_takes_what_the_newer_commit_brought_and_leaves_what_it_put_back() -> None:
    planes = [(await overtaken(at, Blind))[2] for at in range(await steps())]
    assert any("deleted agent/newer" in plane.log for plane in planes)
    assert any("configured agent/a0" in plane.log and stands(plane)["a0"] != "Newest." for plane in planes)


async def test_the_oracle_notices_what_is_lost() -> None:
    files, plane = await world(Fate())
    await Sync(files, plane).once()
    del plane.objects["Agent", "a5"]
    assert stands(plane) != EXPECTED
