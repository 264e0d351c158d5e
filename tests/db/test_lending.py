"""Connections are kept at hand between statements, and nobody notices: not who waits for one, and not when the server has closed them."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import msgspec
import pytest

from hansa.db.lending import Lender
from hansa.db.pool import Database, open_database
from hansa.errors import Unavailable
from hansa.settings import load
from stack import Stack

PID = "SELECT pg_backend_pid()"
TENANT = UUID(int=0xA)


@asynccontextmanager
async def opened(stack: Stack, size: int, *, timeout: float = 5.0) -> AsyncIterator[Database]:
    settings = msgspec.structs.replace(load(stack.environ).database, pool_size=size, timeout_seconds=timeout)
    async with open_database(settings) as database:
        yield database


async def ended(stack: Stack, pids: list[int]) -> None:
    """Have the server close connections, and wait until it has."""
    admin = await asyncpg.connect(stack.admin_url)
    try:
        for pid in pids:
            await admin.execute("SELECT pg_terminate_backend($1, 5000)", pid)
    finally:
        await admin.close()


async def test_statements_one_after_the_other_go_over_one_connection(stack: Stack) -> None:
    async with opened(stack, 4) as database:
        assert len({await database.call(PID) for _ in range(5)}) == 1


async def test_connections_that_were_closed_while_they_were_kept_are_replaced(stack: Stack) -> None:
    async with opened(stack, 4) as database:
        for _ in range(2):
            pids = await asyncio.gather(*(database.call(f"{PID} FROM pg_sleep(0.05)") for _ in range(4)))
            await ended(stack, pids)
            await asyncio.sleep(0.05)
            later = await asyncio.gather(*(database.call(f"{PID} FROM pg_sleep(0.05)") for _ in range(4)))
            assert not set(pids) & set(later)


@pytest.mark.parametrize(("idle", "same"), [(60.0, True), (0.0, False)])
async def test_a_connection_that_nobody_wanted_for_long_is_not_lent_again(stack: Stack, idle: float, *, same: bool) -> None:
    async with asyncpg.create_pool(load(stack.environ).database.app_url, min_size=1, max_size=2) as pool:
        lender = Lender(pool, keep=1, idle=idle)
        async with lender.lent(5) as connection:
            first = connection.get_server_pid()
        async with lender.lent(5) as connection:
            assert (connection.get_server_pid() == first) == same
        await lender.close()


async def test_all_connections_are_there_for_whoever_waits(stack: Stack) -> None:
    async with opened(stack, 2) as database:
        await database.call(PID)
        pids = await asyncio.gather(*(database.call(f"{PID} FROM pg_sleep(0.01)") for _ in range(20)))
        assert len(set(pids)) == 2


async def test_who_waits_in_vain_is_told_and_takes_nothing_along(stack: Stack) -> None:
    async with opened(stack, 1, timeout=0.3) as database:
        async with database.tenant(TENANT):
            with pytest.raises(Unavailable):
                await database.call(PID)
        assert await database.call(PID)


async def test_what_fails_or_is_cancelled_leaves_nothing_behind(stack: Stack) -> None:
    async with opened(stack, 1) as database:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await database.call("SELECT 1 / 0")
        with pytest.raises(RuntimeError):
            async with database.tenant(TENANT):
                raise RuntimeError
        sleep = asyncio.create_task(database.call("SELECT pg_sleep(10)"))
        await asyncio.sleep(0.05)
        sleep.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleep
        assert await database.call("SELECT hansa.tenant()") is None


async def test_what_is_kept_holds_up_no_end(stack: Stack) -> None:
    async with opened(stack, 4) as database:
        await asyncio.gather(*(database.call(f"{PID} FROM pg_sleep(0.05)") for _ in range(4)))
        begin = time.monotonic()
    assert time.monotonic() - begin < 2
