"""The link does what it is told, and otherwise carries every byte."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from chaos.link import LOOPBACK, Link

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def shouting() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers each line in capitals; its port and what it has heard."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                heard.append(line)
                writer.write(line.upper())
        except ConnectionError:
            pass  # cut
        finally:
            writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Link, list[bytes]]]:
    async with shouting() as (port, heard), Link(port) as link:
        yield link, heard


@asynccontextmanager
async def connected(link: Link) -> AsyncIterator[Ends]:
    reader, writer = await asyncio.open_connection(LOOPBACK, link.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def asked(ends: Ends, line: bytes) -> bytes:
    ends[1].write(line + b"\n")
    return (await asyncio.wait_for(ends[0].readline(), 5)).strip()


async def test_bytes_are_carried_both_ways() -> None:
    async with linked() as (link, _), connected(link) as ends:
        long = b"a" * 60_000
        assert await asked(ends, long) == long.upper()
        assert await asked(ends, b"more") == b"MORE"


async def test_a_cut_ends_every_connection_and_new_ones_are_carried() -> None:
    async with linked() as (link, _):
        async with connected(link) as ends:
            assert await asked(ends, b"one") == b"ONE"
            link.cut()
            with pytest.raises((ConnectionError, EOFError)):
                assert await asyncio.wait_for(ends[0].readexactly(1), 5)
        async with connected(link) as ends:
            assert await asked(ends, b"two") == b"TWO"


async def test_a_half_close_is_heard_and_the_way_there_stays_open() -> None:
    async with linked() as (link, heard), connected(link) as ends:
        assert await asked(ends, b"one") == b"ONE"
        link.half_close()
        assert await asyncio.wait_for(ends[0].read(), 5) == b""
        ends[1].write(b"two\n")
        async with asyncio.timeout(5):
            while heard != [b"one\n", b"two\n"]:
                await asyncio.sleep(0.01)


async def test_a_stall_holds_everything_back_and_then_lets_it_go() -> None:
    async with linked() as (link, heard), connected(link) as ends:
        assert await asked(ends, b"one") == b"ONE"
        stall = asyncio.create_task(link.stall(0.3))
        await asyncio.sleep(0.05)
        ends[1].write(b"two\n")
        await asyncio.sleep(0.1)
        assert heard == [b"one\n"]
        await stall
        assert await asyncio.wait_for(ends[0].readline(), 5) == b"TWO\n"


async def test_muted_answers_never_arrive_and_what_was_asked_is_done() -> None:
    async with linked() as (link, heard), connected(link) as ends:
        assert await asked(ends, b"one") == b"ONE"
        mute = asyncio.create_task(link.mute(0.2))
        await asyncio.sleep(0.05)
        ends[1].write(b"two\n")
        with pytest.raises((ConnectionError, EOFError)):
            assert await asyncio.wait_for(ends[0].readexactly(1), 5)
        await mute
        assert heard == [b"one\n", b"two\n"]
