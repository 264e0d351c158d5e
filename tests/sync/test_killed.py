"""A process that is killed at any await, and the one that comes after it: in the end everything is as the files say."""

import random
from contextlib import suppress

import pytest

from hansa.apply.sync.engine import Sync
from hansa.apply.sync.model import SYNCED
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


async def test_the_oracle_notices_what_is_lost() -> None:
    files, plane = await world(Fate())
    await Sync(files, plane).once()
    del plane.objects["Agent", "a5"]
    assert stands(plane) != EXPECTED
