"""A connection to NATS ends in whatever state it is: a process that stops says why it stopped, and nothing else."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import msgspec
import pytest

from chaos.link import LOOPBACK, Link
from hansa.bus.connection import CLOSE_SECONDS, Bus, open_bus
from hansa.settings import NatsSettings, load
from stack import Stack

MUCH = b"." * 1_000_000
FULL_SECONDS = 0.3
"""A message that is not taken within this time will not be."""


class Broken(Exception):
    """Why the process stops."""


class Way:
    """A link to the stack's NATS that takes nothing any more once it is `full`."""

    def __init__(self, settings: NatsSettings, link: Link) -> None:
        self.settings = settings
        self.link = link
        self.stalled: asyncio.Task[None] | None = None

    async def fill(self, bus: Bus) -> None:
        """Write until the connection takes no more."""
        self.stalled = asyncio.create_task(self.link.stall(60), name="stall")
        await asyncio.sleep(0)
        taken = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() - taken < FULL_SECONDS:
            taken = asyncio.get_running_loop().time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FULL_SECONDS):
                    await bus.ring("closing.much", MUCH)


@pytest.fixture
async def way(stack: Stack) -> AsyncIterator[Way]:
    settings = load(stack.environ).nats
    async with Link(urlsplit(stack.servers.nats.url).port or 4222) as link:
        found = Way(msgspec.structs.replace(settings, url=f"nats://{LOOPBACK}:{link.port}"), link)
        yield found
        if found.stalled is not None:
            found.stalled.cancel()


async def test_who_stops_while_the_connection_is_being_mended_says_why(way: Way) -> None:
    """The client awaits the end of the old connection; its own close cancels that, and is not cancelled by it."""

    async def run() -> None:
        async with open_bus(way.settings, name="closing") as bus:
            await way.fill(bus)
            way.link.half_close()
            async with asyncio.timeout(5):
                while bus.connected:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            raise Broken

    with pytest.raises(Broken):
        await run()


async def test_a_server_that_takes_nothing_more_holds_up_no_end(way: Way) -> None:
    async with open_bus(way.settings, name="closing") as bus:
        await way.fill(bus)
        begin = time.monotonic()
    assert time.monotonic() - begin < 2 * CLOSE_SECONDS


async def test_who_is_cancelled_while_it_closes_is_cancelled(way: Way) -> None:
    closing = asyncio.Event()

    async def run() -> None:
        async with open_bus(way.settings, name="closing") as bus:
            await way.fill(bus)
            closing.set()

    work = asyncio.create_task(run(), name="work")
    await closing.wait()
    await asyncio.sleep(0.05)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
