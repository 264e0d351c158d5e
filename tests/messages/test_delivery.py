"""What is sent is received once, in the order of its key, whoever sends it twice and however many carry it."""

import asyncio
import time

import asyncpg
import msgspec
import pytest

from hansa import ids
from hansa.bus.subjects import messages_sent
from hansa.errors import TooLarge
from hansa.messages import service, store
from hansa.messages.courier import queue_of
from hansa.messages.model import MAX_PAYLOAD_BYTES, Envelope, Message
from hansa.settings import MessageSettings
from messages.post import QUICK, A, B, Office


async def test_a_message_is_received_once_and_leaves_nothing_behind(office: Office) -> None:
    async with office.courier():
        await office.send("k")
        await office.send(None, tenant=B)
        await office.settled()
        await asyncio.sleep(1.2)  # a poll: what was delivered is removed
        assert await office.scratch.fetch("SELECT FROM hansa.outbox") == []
    assert await office.verdict() == []
    assert [row["handled_at"] is not None for row in await office.scratch.fetch("SELECT handled_at FROM hansa.inbox")] == [True, True]


async def test_messages_of_a_key_come_in_order_over_several_relays(office: Office) -> None:
    async with office.couriers(3):
        for _ in range(20):
            await asyncio.gather(*(office.send(f"k{n}", tenant=tenant, count=2) for n in range(3) for tenant in (A, B)), office.send())
        await office.settled()
    assert await office.verdict() == []
    assert len(await office.received()) == 20 * 13


async def test_a_message_that_was_put_by_hand_into_nats_again_is_received_once(office: Office) -> None:
    queue = queue_of(office.bus, QUICK, region=office.region, replicas=1)
    async with office.courier():
        (first,) = await office.send("k", seconds=0.3)
        await queue.ensure()
        for number in range(5):  # while it is handled, and after
            payload = msgspec.json.encode(Envelope(A, first))
            await queue.publish(messages_sent(office.region, A.hex), payload, message_id=f"by hand {number}")
            await asyncio.sleep(0.1)
        await office.send("k")
        await office.settled()
    assert await office.verdict() == []


async def test_what_names_no_row_or_is_no_envelope_does_nothing(office: Office) -> None:
    queue = queue_of(office.bus, QUICK, region=office.region, replicas=1)
    async with office.courier():
        (mine,) = await office.send("k")
        await office.settled()
        named = [msgspec.json.encode(Envelope(*each)) for each in ((A, ids.new_id()), (B, mine))]
        for number, payload in enumerate([b"", b"{}", b"[1]", *named]):
            await queue.publish(messages_sent(office.region, A.hex), payload, message_id=f"forged {number}")
        await office.send("k")
        await office.settled()
    assert await office.verdict() == []
    assert len(await office.received()) == 2


async def test_the_same_id_is_sent_once_and_again_only_to_be_dropped(office: Office) -> None:
    message = Message(A, ids.new_id(), "witness", "k", '{"n": 1}')
    async with office.courier():
        async with office.database.tenant(A) as connection:
            assert [await store.put(connection, message) for _ in range(3)] == [True, False, False]
        await office.settled()
        async with office.database.tenant(A) as connection:  # a verb that is tried again long after
            assert await store.put(connection, message)
        await office.send("k")
        await office.settled()
    assert len(await office.received()) == 2


async def test_what_is_rolled_back_is_not_sent(office: Office) -> None:
    async with office.courier() as relay:
        async with office.database.tenant(A) as connection:
            inner = connection.transaction()
            await inner.start()
            assert await store.put(connection, Message(A, ids.new_id(), "witness", "k", '{"n": 1}'))
            await inner.rollback()
        relay.wake()
        await office.send("k")
        await office.settled()
    assert [row["n"] for row in await office.received()] == [1]
    assert await office.verdict() == []


async def test_a_payload_that_is_too_large_or_no_json_is_refused(office: Office) -> None:
    fits = '"' + "x" * (MAX_PAYLOAD_BYTES - 2) + '"'
    async with office.database.tenant(A) as connection:
        assert await service.send(connection, Message(A, ids.new_id(), "witness", None, fits))
        with pytest.raises(TooLarge, match="has 1048577 bytes, and a message may have 1048576"):
            await service.send(connection, Message(A, ids.new_id(), "witness", None, fits + " "))
    for payload, error in ((fits + " ", asyncpg.ProgramLimitExceededError), ("{", asyncpg.InvalidTextRepresentationError)):
        with pytest.raises(error):
            async with office.database.tenant(A) as connection:
                await store.put(connection, Message(A, ids.new_id(), "witness", None, payload))


async def test_one_megabyte_is_carried(office: Office) -> None:
    async with office.courier():
        await office.send("k", count=3, filler="x" * (MAX_PAYLOAD_BYTES - 100))
        await office.settled()
    assert await office.verdict() == []


async def test_nobody_sends_in_the_name_of_another_tenant(office: Office) -> None:
    async with office.database.tenant(A) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await store.put(connection, Message(B, ids.new_id(), "witness", "k", '{"n": 1}'))


async def test_a_slow_receiver_holds_back_only_its_key_and_is_not_helped_by_a_second_one(office: Office) -> None:
    async with office.courier():  # what is silent for a second is sent and given out again
        await office.send("slow", seconds=2.5)
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        await office.send("quick", count=5)
        while len(await office.received()) < 5:
            assert time.monotonic() - begun < 2, "the slow one holds up the others"
            await asyncio.sleep(0.02)
        await office.settled()
    assert await office.verdict() == []


async def test_no_more_than_the_window_is_in_nats(office: Office) -> None:
    await office.send(None, count=100)
    await office.send("k", count=100)
    async with office.couriers(2, MessageSettings(window=20, concurrency=1)):
        for _ in range(20):
            (row,) = await office.scratch.fetch("SELECT count(*) AS n FROM hansa.outbox WHERE state = 'flight'")
            assert row["n"] <= 21  # the next of a key takes the place of the last, whatever the room
            await asyncio.sleep(0.01)
        await office.settled()
    assert await office.verdict() == []


async def test_the_cost_of_a_claim_does_not_grow_with_the_backlog(office: Office) -> None:
    """By rows visited, which no load of the machine changes: 50,000 held behind one key, 50,000 new of their own."""
    columns = "(tenant_id, id, kind, key, payload, state)"
    for state, key in (("held", "'k'"), ("new", "n::text")):
        values = f"SELECT $1, gen_random_uuid(), 'witness', {key}, '1', '{state}' FROM generate_series(1, 50000) n"
        await office.scratch.execute(f"INSERT INTO hansa.outbox {columns} {values}", A)
    await office.scratch.execute("UPDATE hansa.outbox SET state = 'delivered' WHERE position = 1")
    await office.scratch.execute("ANALYZE hansa.outbox")
    before = await visited(office)
    claims = [await store.claim(office.database, limit=100, window=1000) for _ in range(8)]  # more than PostgreSQL plans anew
    assert [len(claimed.due) for claimed in claims] == [101, *[100] * 7]
    assert await visited(office) - before < 8 * 2000


async def visited(office: Office) -> int:
    """Rows of the outbox that were read so far."""
    await asyncio.sleep(1.1)  # sessions report at most once a second
    await office.database.system("SELECT pg_stat_force_next_flush()")
    await office.scratch.execute("SELECT pg_stat_clear_snapshot()")
    sql = "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) AS n FROM pg_stat_user_tables WHERE relname = 'outbox'"
    return (await office.scratch.fetch(sql))[0]["n"]
