"""A message that can't be received is put aside, and those behind it go on; what is put aside can be sent again."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest

from hansa.db.pool import Connection
from hansa.errors import Unavailable
from hansa.messages import store
from hansa.messages.model import Message, Ring
from messages.post import A, B, Office, witness


async def letters(office: Office, tenant: UUID = A) -> list[UUID]:
    """The dead letters of a tenant, newest first, as the app sees them."""
    async with office.database.tenant(tenant) as connection:
        rows = await store.list_letters(connection, None, 100)
        return [UUID(text.split('"')[3]) for text in (row["body"] for row in rows)]


async def test_a_poisoned_message_is_put_aside_after_five_attempts_and_its_key_goes_on(office: Office) -> None:
    async with office.courier():
        (poisoned,) = await office.send("k", poison=True)
        behind = await office.send("k", count=2)
        await office.settled()
    assert [row["id"] for row in await office.received()] == behind
    assert await letters(office) == [poisoned]
    assert await letters(office, B) == []
    (letter,) = await office.scratch.fetch("SELECT attempts, reason FROM hansa.dead_letters")
    assert letter == {"attempts": 5, "reason": "Fails: message 1 is poisoned"}


async def test_a_dead_letter_that_is_sent_again_is_received_once_under_its_old_id(office: Office) -> None:
    async with office.courier() as relay:
        (poisoned,) = await office.send("k", poison=True)
        await office.settled()
        async with office.database.tenant(B) as connection:
            assert not await store.retry_letter(connection, B, poisoned)
        await office.scratch.execute("INSERT INTO hansa_antidote VALUES (1)")
        async with office.database.tenant(A) as connection:
            assert await store.retry_letter(connection, A, poisoned)
            assert not await store.retry_letter(connection, A, poisoned)
        relay.wake()
        await office.settled()
    assert await letters(office) == []
    assert await office.verdict() == []


async def test_one_that_is_sent_again_has_all_its_attempts_again(office: Office) -> None:
    async with office.courier() as relay:
        (poisoned,) = await office.send("k", poison=True)
        await office.settled()
        async with office.database.tenant(A) as connection:
            assert await store.retry_letter(connection, A, poisoned)
        relay.wake()
        await office.settled()
    assert await letters(office) == [poisoned]
    assert (await office.scratch.fetch("SELECT attempts FROM hansa.dead_letters"))[0]["attempts"] == 5


async def test_a_kind_that_nobody_receives_is_a_dead_letter_at_once_with_the_reason(office: Office) -> None:
    async with office.courier():
        (unknown,) = await office.send("k", kind="juggle")
        behind = await office.send("k")
        await office.settled()
    assert await letters(office) == [unknown]
    assert [row["id"] for row in await office.received()] == behind
    (letter,) = await office.scratch.fetch("SELECT attempts, reason FROM hansa.dead_letters")
    assert letter == {"attempts": 0, "reason": "nothing here receives messages of the kind 'juggle' (kinds received: witness)"}


async def test_a_failed_attempt_leaves_nothing_and_the_next_one_succeeds(office: Office) -> None:
    attempts: list[int] = []

    async def second_time(connection: Connection, message: Message) -> Sequence[Ring]:
        rings = await witness(connection, message)
        attempts.append(1)
        if len(attempts) < 2:
            raise ValueError("not this time\x00")
        return rings

    async with office.courier(receivers={"witness": second_time}):
        await office.send("k")
        await office.settled()
    assert len(attempts) == 2
    assert await office.verdict() == []
    assert await letters(office) == []


async def test_a_receiver_without_a_database_is_not_blamed(office: Office) -> None:
    """Six outages are no reason to give up a message: what is not reachable is waited for."""
    attempts: list[int] = []

    async def at_last(connection: Connection, message: Message) -> Sequence[Ring]:
        attempts.append(1)
        if len(attempts) < 3:
            raise Unavailable("away")
        return await witness(connection, message)

    async with office.courier(receivers={"witness": at_last}):
        await office.send("k")
        await office.settled()
    assert await office.verdict() == []
    assert await letters(office) == []


async def test_the_doorbells_of_a_receiver_ring_after_the_commit(office: Office) -> None:
    heard = asyncio.get_running_loop().create_future()
    (message,) = await office.send("k")

    async def listening(_: bytes) -> None:
        heard.set_result(await office.received())

    async with office.bus.listen(f"test.rang.{message.hex}", listening), office.courier():
        assert [row["id"] for row in await asyncio.wait_for(heard, 10)] == [message]


@pytest.mark.parametrize("age", ["25 hours", "8 days"])
async def test_what_was_received_is_remembered_for_as_long_as_it_must(office: Office, age: str) -> None:
    async with office.courier():
        await office.send("k")
        await office.settled()
    await office.scratch.execute(f"UPDATE hansa.inbox SET handled_at = handled_at - interval '{age}'")
    assert await store.sweep(office.database, days=7) == (age == "8 days")
    assert len(await office.scratch.fetch("SELECT FROM hansa.inbox")) == (age != "8 days")
