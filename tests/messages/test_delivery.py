"""What is sent is received once, in order of its key, whoever sends it twice and however many carry it."""

import asyncio

from messages.post import A, B, Office


async def test_a_message_is_received_once_and_leaves_nothing_behind(office: Office) -> None:
    async with office.courier():
        await office.send("k")
        await office.send(None, tenant=B)
        await office.settled()
    assert await office.verdict() == []
    assert len(await office.received()) == 2
    assert [row["handled_at"] is not None for row in await office.scratch.fetch("SELECT handled_at FROM hansa.inbox")] == [True, True]


async def test_messages_of_a_key_come_in_order_over_several_relays(office: Office) -> None:
    async with office.couriers(3):
        for _ in range(20):
            await asyncio.gather(*(office.send(f"k{n}", tenant=tenant, count=2) for n in range(3) for tenant in (A, B)), office.send())
        await office.settled()
    assert await office.verdict() == []
    assert len(await office.received()) == 20 * 13
