"""A post office for tests: a database of its own, couriers in this process, and a witness who writes down what is received.

The witness's table has no unique key, so that a doubled effect is seen. Each office is a region of its own, with its own queue.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import msgspec
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from db.scratch import Scratch
from hansa import ids
from hansa.bus.connection import Bus, open_bus
from hansa.bus.subjects import messages_queue, messages_ready
from hansa.db.pool import Connection, Database, open_database
from hansa.messages import store
from hansa.messages.courier import open_courier
from hansa.messages.model import Message, Receivers, Ring
from hansa.messages.relay import Relay
from hansa.settings import MessageSettings, NatsSettings

A, B = UUID(int=0xA), UUID(int=0xB)
QUICK = MessageSettings(resend_seconds=1.0, backoff_seconds=0.05)


class Fails(Exception):
    """What the test receiver raises for a poisoned message."""


async def witness(connection: Connection, message: Message) -> Sequence[Ring]:
    """Write down what came; fail, after that, when the message says so."""
    told = json.loads(message.payload)
    await connection.execute(
        "INSERT INTO hansa_witness (tenant_id, id, key, n) VALUES ($1, $2, $3, $4)", message.tenant_id, message.id, message.key, told["n"]
    )
    await asyncio.sleep(told.get("seconds", 0))
    if told.get("poison") and not await connection.fetchval("SELECT EXISTS (SELECT FROM hansa_antidote)"):
        raise Fails(f"message {told['n']} is poisoned")
    return [Ring(f"test.rang.{message.id.hex}")]


class Office:
    """One region's database, and couriers over it. Use `open_office`."""

    def __init__(self, scratch: Scratch, database: Database, bus: Bus) -> None:
        self.scratch = scratch
        self.database = database
        self.bus = bus
        self.region = f"r{uuid4().hex[:12]}"
        self.sent: dict[UUID, tuple[UUID, str | None, int]] = {}
        self._number = 0

    @asynccontextmanager
    async def courier(self, settings: MessageSettings = QUICK, receivers: Receivers | None = None) -> AsyncIterator[Relay]:
        """A courier as a worker has one, over connections of its own."""
        known = {"witness": witness} if receivers is None else receivers
        async with (
            open_database(self.scratch.settings.database) as database,
            open_bus(self.scratch.settings.nats, name="courier") as bus,
            open_courier(database, bus, known, settings, region=self.region) as relay,
        ):
            yield relay

    @asynccontextmanager
    async def couriers(self, count: int, settings: MessageSettings = QUICK) -> AsyncIterator[None]:
        """Several couriers."""
        async with AsyncExitStack() as opened:
            for _ in range(count):
                await opened.enter_async_context(self.courier(settings))
            yield

    async def send(self, key: str | None = None, *, tenant: UUID = A, count: int = 1, **told: Any) -> list[UUID]:
        """Send messages, numbered over all, in one transaction; and ring."""
        sent: dict[UUID, tuple[UUID, str | None, int]] = {}
        async with self.database.tenant(tenant) as connection:
            for _ in range(count):
                self._number += 1
                number = self._number
                kind = told.get("kind", "witness")
                payload = msgspec.json.encode({"n": number, **told}).decode()
                message = Message(tenant, ids.new_id(), kind, key, payload)
                assert await store.put(connection, message)
                sent[message.id] = (tenant, key, number)
        self.sent |= sent  # not before it is committed: what was refused may be lost
        await self.bus.ring(messages_ready(self.region))
        return list(sent)

    async def received(self) -> list[dict[str, Any]]:
        """What the witness wrote down, in the order of the transactions' writes."""
        return await self.scratch.fetch("SELECT tenant_id, id, key, n FROM hansa_witness ORDER BY seen")

    async def left(self) -> int:
        """Messages that are still on their way."""
        return (await self.scratch.fetch("SELECT count(*) AS n FROM hansa.outbox WHERE state <> 'delivered'"))[0]["n"]

    async def settled(self, *, seconds: float = 20.0) -> None:
        """Wait until nothing is on its way."""
        end = time.monotonic() + seconds
        while await self.left():
            assert time.monotonic() < end, await self.scratch.fetch("SELECT * FROM hansa.outbox ORDER BY position LIMIT 20")
            await asyncio.sleep(0.02)

    async def delete_queue(self) -> None:
        """All that NATS has is lost."""
        async with jetstream(self.scratch.settings.nats) as server:
            with contextlib.suppress(NotFoundError):
                await server.delete_stream(messages_queue(self.region))

    async def delete_consumer(self) -> None:
        async with jetstream(self.scratch.settings.nats) as server:
            await server.delete_consumer(messages_queue(self.region), messages_queue(self.region))

    async def shrink_queue(self) -> None:
        """Someone changes the queue to what can't work."""
        async with jetstream(self.scratch.settings.nats) as server:
            config = (await server.stream_info(messages_queue(self.region))).config
            await server.update_stream(config.evolve(max_bytes=1000))

    async def queue_bytes(self) -> int:
        """The size that the queue may have."""
        async with jetstream(self.scratch.settings.nats) as server:
            return (await server.stream_info(messages_queue(self.region))).config.max_bytes

    async def verdict(self) -> list[str]:
        """What is wrong with what was received, against what was sent."""
        return faults(self.sent, await self.received())


def faults(sent: dict[UUID, tuple[UUID, str | None, int]], received: list[dict[str, Any]]) -> list[str]:
    """The oracle: lost, doubled, foreign and reordered messages."""
    found: list[str] = []
    times: dict[UUID, int] = {}
    last: dict[tuple[UUID, str], int] = {}
    for row in received:
        times[row["id"]] = times.get(row["id"], 0) + 1
        if sent.get(row["id"]) != (row["tenant_id"], row["key"], row["n"]):
            found.append(f"foreign: {row}")
        if row["key"] is not None:
            if last.get((row["tenant_id"], row["key"]), 0) > row["n"]:
                found.append(f"reordered: {row['n']} of key {row['key']} after {last[row['tenant_id'], row['key']]}")
            last[row["tenant_id"], row["key"]] = row["n"]
    found += [f"lost: {n}" for message_id, (_, _, n) in sent.items() if message_id not in times]
    found += [f"doubled: {sent[message_id][2]}" for message_id, count in times.items() if count > 1 and message_id in sent]
    return found


@asynccontextmanager
async def open_office(scratch: Scratch) -> AsyncIterator[Office]:
    """An office over a fresh database with tenants A and B."""
    await scratch.add_tenant(A, "a")
    await scratch.add_tenant(B, "b")
    await scratch.execute("CREATE TABLE hansa_witness (seen bigserial, tenant_id uuid, id uuid, key text, n bigint)")
    await scratch.execute("CREATE TABLE hansa_antidote (n bigint)")
    await scratch.execute("GRANT ALL ON hansa_witness, hansa_witness_seen_seq, hansa_antidote TO hansa_app")
    async with open_database(scratch.settings.database) as database, open_bus(scratch.settings.nats, name="office") as bus:
        office = Office(scratch, database, bus)
        yield office
        await office.delete_queue()  # each has its part of the server's disk


@asynccontextmanager
async def jetstream(settings: NatsSettings) -> AsyncIterator[Any]:
    """JetStream itself, behind Hansa's back."""
    options: dict[str, Any] = {"user_credentials": settings.creds_file}
    client: Any = Client()
    await client.connect(settings.url, **options)
    try:
        yield client.jetstream()
    finally:
        await client.close()
