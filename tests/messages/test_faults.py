"""NATS is killed and loses its disk, PostgreSQL is restarted, couriers die: nothing is lost, doubled or out of order."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from db.scratch import open_scratch
from hansa.bus.connection import open_bus
from hansa.bus.queue import Queue
from hansa.db.pool import Database, open_database
from hansa.errors import Unavailable
from hansa.messages.courier import queue_of
from hansa.messages.model import Due
from hansa.messages.relay import Relay
from messages.post import QUICK, A, B, Office, open_office
from stack import Stack


@pytest.fixture
async def fragile(own_stack: Stack, tmp_path: Path) -> AsyncIterator[tuple[Stack, Office]]:
    """An office over servers that are its own to break."""
    async with open_scratch(own_stack, tmp_path) as scratch, open_office(scratch) as office:
        yield own_stack, office


def pid(stack: Stack, server: str) -> int:
    return int((stack.servers.folder.run / f"{server}.pid").read_text())


async def kill(stack: Stack, server: str) -> None:
    """kill -9; back when the supervisor has started it again."""
    dead = pid(stack, server)
    os.kill(dead, signal.SIGKILL)
    for _ in range(400):
        await asyncio.sleep(0.05)
        try:
            if pid(stack, server) != dead:
                return
        except (FileNotFoundError, ValueError):
            continue
    raise AssertionError(f"{server} is not started again")


async def kill_nats(stack: Stack) -> None:
    await kill(stack, "nats")


async def wipe(stack: Stack) -> None:
    """NATS loses its disk, and itself, once there is something to lose."""
    disk = stack.servers.folder.nats / "jetstream"
    async with asyncio.timeout(30):
        while not any(disk.rglob("*.blk")):
            await asyncio.sleep(0.02)
    shutil.rmtree(disk, ignore_errors=True)
    await kill_nats(stack)


async def load(office: Office, until: asyncio.Event) -> None:
    """Messages of two tenants, some with keys; a sender that is refused sends anew."""
    while not until.is_set():
        for tenant in (A, B):
            try:
                await office.send("k1", tenant=tenant, count=3)
                await office.send(None, tenant=tenant)
            except Unavailable:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.02)


@asynccontextmanager
async def under_load(office: Office) -> AsyncIterator[None]:
    until = asyncio.Event()
    loading = asyncio.create_task(load(office, until))
    try:
        yield
    finally:
        until.set()
        await loading


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", [kill_nats, wipe], ids=["killed", "wiped"])
async def test_nats_is_killed_or_wiped_under_load(fragile: tuple[Stack, Office], fault: Callable[[Stack], Awaitable[None]]) -> None:
    stack, office = fragile
    async with office.couriers(2):
        async with under_load(office):
            for _ in range(3):
                await asyncio.sleep(0.7)
                await fault(stack)
        await office.settled(seconds=40)
    assert await office.verdict() == []
    assert len(office.sent) > 40


@pytest.mark.timeout(120)
async def test_postgresql_is_killed_under_load(fragile: tuple[Stack, Office]) -> None:
    stack, office = fragile
    async with office.couriers(2):
        async with under_load(office):
            for _ in range(2):
                await asyncio.sleep(0.7)
                await kill(stack, "postgres")
        await office.scratch.reconnect()
        await office.settled(seconds=40)
    # What a sender saw refused may be committed all the same: then it is received, and this office does not know of it.
    assert [told for told in await office.verdict() if not told.startswith("foreign")] == []
    assert await office.scratch.fetch("SELECT FROM hansa.dead_letters") == []
    assert len(office.sent) > 20


@pytest.mark.timeout(120)
async def test_a_courier_that_ends_in_the_middle_of_its_work_leaves_it_to_the_others(office: Office) -> None:
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(office.courier())
        for _ in range(5):
            async with office.courier():
                await office.send("k", count=5, seconds=0.01)
                await office.send(None, count=5, seconds=0.01)
                await asyncio.sleep(0.05)
        await office.settled()
    assert await office.verdict() == []


@pytest.mark.timeout(120)
async def test_a_queue_that_is_deleted_or_changed_is_made_again(office: Office) -> None:
    queue = queue_of(office.bus, QUICK, region=office.region, replicas=1)
    async with office.courier():
        await office.send("k")
        await office.settled()
        for damage in (office.delete_queue, office.delete_consumer):
            await damage()
            await office.send("k", count=2)
            await office.settled()
        await office.shrink_queue()
        queue.lost()
        assert not await queue.ensure()
        assert await office.queue_bytes() == 16 << 20
    assert await office.verdict() == []


class Lazy(Relay):
    """The broken control: takes NATS's word for the receiver's."""

    def __init__(self, database: Database, queue: Queue, *, region: str) -> None:
        super().__init__(database, queue, QUICK, region=region)
        self.database = database

    async def acknowledged(self, published: list[Due]) -> None:
        for each in published:
            async with self.database.tenant(each.tenant_id) as connection:
                sql = "UPDATE hansa.outbox SET state = 'delivered' WHERE tenant_id = $1 AND position = $2"
                await connection.execute(sql, each.tenant_id, each.position)


async def test_a_relay_that_forgets_what_nats_has_acknowledged_is_caught(office: Office) -> None:
    async with open_database(office.scratch.settings.database) as database, open_bus(office.scratch.settings.nats, name="lazy") as bus:
        queue = queue_of(bus, QUICK, region=office.region, replicas=1)
        relaying = asyncio.create_task(Lazy(database, queue, region=office.region).run())
        await office.send(None, count=20)
        await office.settled()  # it thinks
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)
        await office.delete_queue()  # the disk is lost
    async with office.courier():
        await asyncio.sleep(2)
    assert len(await office.verdict()) == 20
    assert all(told.startswith("lost") for told in await office.verdict())


async def test_the_oracle_sees_each_kind_of_fault(office: Office) -> None:
    async with office.courier():
        (first,) = await office.send("k")
        await office.send("k", count=2)
        await office.settled()
    assert await office.verdict() == []
    await office.scratch.execute("INSERT INTO hansa_witness (tenant_id, id, key, n) VALUES ($1, $2, 'k', 1)", A, first)
    assert [told.split(":")[0] for told in await office.verdict()] == ["reordered", "doubled"]
    await office.scratch.execute("DELETE FROM hansa_witness WHERE id = $1", first)
    assert await office.verdict() == ["lost: 1"]
    await office.scratch.execute("INSERT INTO hansa_witness (tenant_id, id, key, n) VALUES ($1, $2, 'k', 1)", B, first)
    assert [told.split(":")[0] for told in await office.verdict()] == ["foreign"]
