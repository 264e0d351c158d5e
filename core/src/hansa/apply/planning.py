"""A transaction within a transaction that never was: what is done in it is done as ever, and then undone. So a plan and what it plans can't
disagree.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hansa.db.pool import Connection


class _Undone(Exception):
    """Ends such a transaction."""


@asynccontextmanager
async def undone(connection: Connection) -> AsyncIterator[None]:
    """Everything that is written within is not written; also the locks on it are given back."""
    try:
        async with connection.transaction():
            yield
            raise _Undone
    except _Undone:
        return
