"""Fixtures for the egress door: servers on loopback."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from egress.doubles import Loopback


@asynccontextmanager
async def listening(host: str, port: int = 0) -> AsyncGenerator[Loopback]:
    server = Loopback(host)
    listener = await asyncio.start_server(server.serve, host, port)
    server.port = int(listener.sockets[0].getsockname()[1])
    try:
        yield server
    finally:
        listener.close()
        for writer in server.writers:
            writer.close()
        await listener.wait_closed()


@pytest.fixture
async def loopback() -> AsyncGenerator[Loopback]:
    """On 127.0.0.1, a free port."""
    async with listening("127.0.0.1") as server:
        yield server


@pytest.fixture
async def neighbour(loopback: Loopback) -> AsyncGenerator[Loopback]:
    """On 127.0.0.2, at the port of `loopback`: another machine, as far as the network is concerned."""
    async with listening("127.0.0.2", loopback.port) as server:
        yield server
