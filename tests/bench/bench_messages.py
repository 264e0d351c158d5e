"""How long a message takes from its sender's commit to its receiver's transaction, and how many go through in a second."""

import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from bench.figures import Figures
from db.scratch import open_scratch
from hansa.db.pool import Connection
from hansa.messages.model import Message, Ring
from hansa.settings import MessageSettings
from messages.post import Office, open_office
from stack import Stack

ROUNDS = 200
BURST = 1000


@pytest.fixture
async def office(stack: Stack, tmp_path: Path) -> AsyncIterator[Office]:
    async with open_scratch(stack, tmp_path) as scratch, open_office(scratch) as opened:
        yield opened


async def test_a_message_is_there_soon(office: Office, figures: Figures) -> None:
    arrived: list[float] = []

    async def receive(connection: Connection, message: Message) -> Sequence[Ring]:
        arrived.append(time.perf_counter())
        return ()

    latency: list[float] = []
    follow: list[float] = []
    async with office.courier(MessageSettings(), {"witness": receive}):
        for _ in range(ROUNDS):
            await office.send("k")
            sent = time.perf_counter()
            await office.settled()
            latency.append((arrived[-1] - sent) * 1000)
        for _ in range(5):
            del arrived[:]
            await office.send("k", count=50)
            await office.settled()
            follow.append((arrived[-1] - arrived[0]) / 49 * 1000)
    assert figures.report("message_p50", latency, unit="ms", at_most=10) <= 10
    figures.report("message_p99", [sorted(latency)[int(ROUNDS * 0.99)]], unit="ms")
    figures.report("message_next_of_key", follow, unit="ms")


async def test_many_go_through(office: Office, figures: Figures) -> None:
    async def receive(connection: Connection, message: Message) -> Sequence[Ring]:
        return ()

    rates: list[float] = []
    async with office.courier(MessageSettings(), {"witness": receive}):
        for _ in range(3):
            begun = time.perf_counter()
            await office.send(None, count=BURST)
            await office.settled(seconds=60)
            rates.append(BURST / (time.perf_counter() - begun))
    figures.report("messages_per_second", rates, unit="1/s")
