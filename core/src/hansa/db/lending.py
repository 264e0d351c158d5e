"""Lends the connections of a pool: those that were given back last are kept at hand, for the pool's own way of lending costs a process
several times what a short statement does.

Must not know what they are asked. Warning: what went wrong with a connection is the pool's to judge, so it is given back to it then.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

Lent = asyncpg.pool.PoolConnectionProxy
IDLE_SECONDS = 300.0
"""A connection that nobody wanted for so long is not lent again: what lies between may have forgotten it. The pool has the same bound."""


class Lender:
    """Keeps up to `keep` of the pool's connections at hand, and none while somebody waits for one; each for `idle` seconds."""

    def __init__(self, pool: asyncpg.Pool, *, keep: int, idle: float = IDLE_SECONDS) -> None:
        self._pool = pool
        self._keep = keep
        self._idle = idle
        self._kept: list[tuple[Lent, float]] = []
        self._waiting = 0

    @asynccontextmanager
    async def lent(self, timeout: float) -> AsyncIterator[Lent]:
        """A connection, waited for so many seconds at most."""
        connection = await self._taken(timeout)
        try:
            yield connection
        except BaseException:
            await self._pool.release(connection, timeout=timeout)
            raise
        if self._waiting or len(self._kept) >= self._keep or _is_gone(connection):
            await self._pool.release(connection, timeout=timeout)
        else:
            self._kept.append((connection, asyncio.get_running_loop().time()))

    async def close(self) -> None:
        """Give back to the pool what is kept, so that it can be closed."""
        self._keep = 0
        while self._kept:
            await self._pool.release(self._kept.pop()[0])

    async def _taken(self, timeout: float) -> Lent:
        while self._kept:
            connection, since = self._kept.pop()
            if not _is_gone(connection):
                if asyncio.get_running_loop().time() - since < self._idle:
                    return connection
                connection.terminate()
            await self._pool.release(connection)  # which knows it when it is gone already
        self._waiting += 1
        try:
            return await self._pool.acquire(timeout=timeout)
        finally:
            self._waiting -= 1


def _is_gone(connection: Lent) -> bool:
    """Whether the server has closed it, or is away."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True  # the pool has noticed first, and taken it back
