"""The twin does what the SQL functions do: the same random orders to both, and the same rows after each."""

import random
from uuid import UUID

import pytest

from hansa.messages import store
from hansa.messages.model import Message
from messages.post import A, Office
from messages.twin import Outbox, State


class Pair:
    """Both, side by side. Time is what the test makes it: what shall be due is made so."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.twin = Outbox()
        self._expired = 0

    async def put(self, name: int, key: str | None) -> None:
        async with self.office.database.tenant(A) as connection:
            new = await store.put(connection, Message(A, UUID(int=name), "witness", key, "1"))
        assert new == self.twin.put(name, key)

    async def claim(self, limit: int, window: int) -> None:
        claimed = await store.claim(self.office.database, limit=limit, window=window)
        rows, more = self.twin.claim(0.0, limit=limit, window=window)
        assert {(each.id.int, each.position, each.tries) for each in claimed.due} == {(row.name, row.position, row.tries) for row in rows}
        assert claimed.more == more
        await self.office.scratch.execute(
            "UPDATE hansa.outbox SET due_at = now() + interval '1 hour' WHERE state = 'flight' AND due_at > '2021-01-01'"
        )

    async def expire(self, row: int) -> None:
        flying = [each for each in self.twin.rows if each.state is State.FLIGHT]
        if flying:
            chosen = flying[row % len(flying)]
            self._expired += 1  # no two at one time, so that there is one order
            chosen.due = self._expired - 1e9
            sql = "UPDATE hansa.outbox SET due_at = timestamptz '2020-01-01' + $2 * interval '1 second' WHERE position = $1"
            await self.office.scratch.execute(sql, chosen.position, self._expired)

    async def receive(self, name: int) -> None:
        async with self.office.database.tenant(A) as connection:
            accepted = await store.accept(connection, A, UUID(int=name))
        row = self.twin.begin(name)
        new = not isinstance(row, str) and self.twin.commit(row)
        assert (accepted.outcome == "new") == new

    async def compare(self) -> None:
        rows = await self.office.scratch.fetch("SELECT position, id, key, state, tries FROM hansa.outbox ORDER BY position")
        seen = [(row["position"], row["id"].int, row["key"], row["state"], row["tries"]) for row in rows]
        assert seen == [(row.position, row.name, row.key, row.state.value, row.tries) for row in self.twin.rows]


@pytest.mark.parametrize("seed", range(4))
async def test_the_twin_and_the_database_agree(office: Office, seed: int) -> None:
    chance, pair = random.Random(seed), Pair(office)
    for _ in range(120):
        name = chance.randint(1, 25)
        match chance.choice(["put", "put", "claim", "receive", "receive", "expire"]):
            case "put":
                await pair.put(name, chance.choice([None, "a", "b"]))
            case "claim":
                await pair.claim(chance.choice([1, 3, 50]), chance.choice([2, 5, 100]))
            case "receive":
                flying = [row.name for row in pair.twin.rows if row.state is State.FLIGHT]
                await pair.receive(chance.choice([*flying, name]))
            case _:
                await pair.expire(chance.randint(0, 100))
        await pair.compare()
