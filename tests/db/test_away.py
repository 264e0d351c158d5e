"""What counts as a database that is away, so that a request is answered 503 and a run is left to its lease, and what does not."""

import asyncpg
import pytest

from hansa.db.pool import translated
from hansa.errors import Unavailable


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.PostgresIOError('could not open file "base/5/PG_VERSION": Input/output error'),
        asyncpg.DiskFullError("could not extend file: No space left on device"),
        asyncpg.CannotConnectNowError("the database system is starting up"),
        ConnectionResetError("reset"),
        TimeoutError(),
    ],
)
async def test_a_server_in_trouble_is_unavailable(error: Exception) -> None:
    with pytest.raises(Unavailable) as raised:
        async with translated():
            raise error
    assert raised.value.retryable


async def test_a_wrong_statement_stays_what_it_is() -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        async with translated():
            raise asyncpg.UndefinedTableError("no such table")
