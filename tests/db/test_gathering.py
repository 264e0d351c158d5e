"""What is gathered for the database: together when it comes together, by itself when that fails, nobody behind a busy tenant."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest

from hansa.db.gathering import Gatherer, carrying
from hansa.db.pool import Database
from hansa.errors import Unavailable

A, B = UUID(int=1), UUID(int=2)


class Ledger:
    """Does batches, slowly, and remembers them."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.running = 0
        self.most = 0

    async def do(self, pieces: Sequence[str]) -> list[str]:
        self.batches.append(list(pieces))
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        if pieces[0].startswith("slow"):
            await self.open.wait()
        self.running -= 1
        if "away" in pieces:
            raise Unavailable("the database is away")
        if "bad" in pieces:
            raise ValueError("this can't be written")
        return [piece.upper() for piece in pieces]


async def test_the_first_goes_at_once_and_the_others_together() -> None:
    ledger = Ledger()
    gatherer = Gatherer(ledger.do, size=8)
    async with carrying(gatherer):
        first = asyncio.create_task(gatherer.done(A, "one"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        rest = await asyncio.gather(*(gatherer.done(A, f"{n}") for n in range(10)))
    assert (await first, rest) == ("ONE", [f"{n}" for n in range(10)])
    assert [len(batch) for batch in ledger.batches] == [1, 8, 2]


async def test_a_tenant_has_so_many_batches_at_once_and_holds_up_no_other() -> None:
    for abreast in (1, 2):
        ledger = Ledger()
        ledger.open.clear()
        gatherer = Gatherer(ledger.do, size=1, abreast=abreast)
        async with carrying(gatherer, lanes=3):
            slow = [asyncio.create_task(gatherer.done(A, f"slow {n}")) for n in range(5)]
            async with asyncio.timeout(5):
                assert await gatherer.done(B, "b") == "B"
            assert ledger.running == abreast
            ledger.open.set()
            await asyncio.gather(*slow)


class Town(Database):
    """Knows where tenants are, and has no pools."""

    def __init__(self, **own: UUID) -> None:
        self._own = {tenant: Town() for tenant in own.values()}


async def test_each_database_has_its_own_lanes() -> None:
    for town, stuck in ((Town(b=B), {"B"}), (None, set[str]())):
        ledger = Ledger()
        ledger.open.clear()
        gatherer = Gatherer(ledger.do, size=1, database=town)
        async with carrying(gatherer, lanes=2):
            slow = [asyncio.create_task(gatherer.done(UUID(int=n), "slow")) for n in range(10, 14)]
            await asyncio.sleep(0.01)
            other = asyncio.create_task(gatherer.done(B, "b"))
            done, _ = await asyncio.wait([other], timeout=0.05)
            assert ({each.result() for each in done}, ledger.running) == (stuck, 2)
            ledger.open.set()
            await asyncio.gather(*slow, other)


async def test_pieces_with_the_same_mark_are_never_in_one_batch() -> None:
    ledger = Ledger()
    gatherer = Gatherer(ledger.do, size=8, mark=lambda piece: piece[0])
    async with carrying(gatherer):
        await asyncio.gather(*(gatherer.done(A, piece) for piece in ("x1", "x2", "y1", "x3")))
    assert all(len({piece[0] for piece in batch}) == len(batch) for batch in ledger.batches)
    assert [piece for batch in ledger.batches for piece in batch if piece[0] == "x"] == ["x1", "x2", "x3"]


async def test_one_that_is_refused_spoils_no_other() -> None:
    gatherer = Gatherer(Ledger().do, size=8)
    async with carrying(gatherer):
        answers = await asyncio.gather(*(gatherer.done(A, piece) for piece in ("a", "bad", "c")), return_exceptions=True)
    assert (answers[0], answers[2]) == ("A", "C")
    assert isinstance(answers[1], ValueError)


async def test_a_database_that_is_away_is_told_to_all_and_not_asked_again() -> None:
    ledger = Ledger()
    gatherer = Gatherer(ledger.do, size=8)
    async with carrying(gatherer):
        answers = await asyncio.gather(*(gatherer.done(A, piece) for piece in ("a", "away")), return_exceptions=True)
        assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
        assert len(ledger.batches) == 1
        assert await gatherer.done(A, "again") == "AGAIN"


async def test_who_waits_when_it_ends_is_not_left_waiting() -> None:
    ledger = Ledger()
    ledger.open.clear()
    gatherer = Gatherer(ledger.do, size=8)
    async with carrying(gatherer):
        slow = asyncio.create_task(gatherer.done(A, "slow"))
        await asyncio.sleep(0.01)
        behind = asyncio.create_task(gatherer.done(A, "behind"))
        await asyncio.sleep(0.01)
    for each in (slow, behind):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(each, 5)


async def test_nobody_waits_for_ever_when_the_end_comes_while_a_refused_batch_is_done_one_by_one() -> None:
    ledger = Ledger()
    ledger.open.clear()
    gatherer = Gatherer(ledger.do, size=8)
    async with carrying(gatherer, lanes=1):
        first = asyncio.create_task(gatherer.done(A, "one"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        rest = [asyncio.create_task(gatherer.done(A, piece)) for piece in ("bad", "slow", "last")]
        async with asyncio.timeout(5):
            while ledger.batches[-1] != ["slow"]:
                await asyncio.sleep(0)
    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(first, *rest, return_exceptions=True)
    assert ["ONE", ValueError, asyncio.CancelledError, asyncio.CancelledError] == [outcomes[0], *(type(each) for each in outcomes[1:])]
