"""Connections to PostgreSQL: an app pool under row-level security and a small system pool.

The tenant is set on the connection, in the transaction, never in the query. Must not know any table.
Warning: a bare connection of the app pool sees zero rows; that is meant.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import UUID

import asyncpg

from hansa.errors import Misconfigured, Unavailable
from hansa.settings import DatabaseSettings

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
T = TypeVar("T")

AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that died within an exchange, met again before asyncpg has noticed
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,  # its disk fails under it
    asyncpg.TransactionRollbackError,
)
"""What asyncpg raises when the server is away, restarting, out of connections or disk, as against a wrong statement."""


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Turn a server that is away into `Unavailable`, which callers may retry."""
    try:
        yield
    except AWAY as error:
        raise Unavailable(f"PostgreSQL is not reachable ({type(error).__name__})", hint="Try again shortly.", retry_after=1.0) from error


class Database:
    """The two pools of a process. Use `open_database`."""

    def __init__(self, app: asyncpg.Pool, system: asyncpg.Pool, timeout: float) -> None:
        self._app = app
        self._system = system
        self._timeout = timeout

    @asynccontextmanager
    async def tenant(self, tenant_id: UUID) -> AsyncIterator[Connection]:
        """A transaction that sees this tenant's rows and no others; commits at the end, rolls back on an exception."""
        async with translated(), self._app.acquire(timeout=self._timeout) as connection, connection.transaction():
            await enter_tenant(connection, tenant_id)
            yield connection

    async def call(self, sql: str, *arguments: Any) -> Any:
        """The single value of one statement by the app, in one round trip: for functions that set the tenant themselves."""
        async with translated(), self._app.acquire(timeout=self._timeout) as connection:
            return await connection.fetchval(sql, *arguments)

    async def call_row(self, sql: str, *arguments: Any) -> asyncpg.Record | None:
        """The first row of one statement by the app, in one round trip."""
        async with translated(), self._app.acquire(timeout=self._timeout) as connection:
            return await connection.fetchrow(sql, *arguments)

    async def call_rows(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of one statement by the app, in one round trip."""
        async with translated(), self._app.acquire(timeout=self._timeout) as connection:
            return await connection.fetch(sql, *arguments)

    async def system(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Rows of one statement by the system role."""
        async with translated(), self._system.acquire(timeout=self._timeout) as connection:
            return await connection.fetch(sql, *arguments)

    @asynccontextmanager
    async def system_transaction(self) -> AsyncIterator[Connection]:
        """A transaction of the system role; commits at the end, rolls back on an exception."""
        async with translated(), self._system.acquire(timeout=self._timeout) as connection, connection.transaction():
            yield connection


async def enter_tenant(connection: Connection, tenant_id: UUID) -> None:
    """From here to the end of its transaction, or until the next call, the connection sees this tenant's rows and no others."""
    await connection.execute("SELECT set_config('hansa.tenant', $1, true)", str(tenant_id))


async def _leave(_: Any) -> None:
    """What is done with a connection that goes back to its pool: nothing. All settings are a transaction's own, so there is nothing to
    reset, and a transaction left open is rolled back by asyncpg itself; it would cost a round trip."""


@asynccontextmanager
async def open_database(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """Open both pools; waits for a server that is only just starting, up to the timeout."""
    if not settings.app_url or not settings.system_url:
        raise Misconfigured(
            "no database is configured: HANSA_DATABASE_APP_URL and HANSA_DATABASE_SYSTEM_URL are both needed",
            hint="`hansa up` sets them; with your own server run `hansa migrate` first (docs/getting-started.md).",
        )
    async with (
        _pool(settings.app_url, settings.pool_size, settings.timeout_seconds) as app,
        _pool(settings.system_url, 2, settings.timeout_seconds) as system,
    ):
        yield Database(app, system, settings.timeout_seconds)


@asynccontextmanager
async def _pool(url: str, size: int, timeout: float) -> AsyncIterator[asyncpg.Pool]:
    pool = await patiently(
        lambda: asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size,
            timeout=timeout,
            command_timeout=timeout,
            reset=_leave,
            # A plan that was made while a table was empty must not read it whole for ever.
            server_settings={"application_name": "hansa", "timezone": "UTC", "enable_seqscan": "off"},
        ),
        timeout,
    )
    try:
        yield pool
    finally:
        try:
            await asyncio.wait_for(pool.close(), timeout)
        except TimeoutError:
            pool.terminate()


async def patiently(connect: Callable[[], Awaitable[T]], timeout: float) -> T:
    """Try to connect until `timeout` seconds are over; the last failure is raised as `Unavailable`."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        try:
            return await connect()
        except AWAY as error:
            if asyncio.get_running_loop().time() >= deadline:
                raise Unavailable(
                    f"PostgreSQL is not reachable after {timeout:g} s: {error}", hint="Is the server up? `hansa doctor` looks."
                ) from error
            await asyncio.sleep(0.1)
        except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
            raise Misconfigured(f"PostgreSQL refuses the login: {error}", hint="Run `hansa migrate` with the admin URL once.") from error


@asynccontextmanager
async def open_owner(settings: DatabaseSettings) -> AsyncIterator[Connection]:
    """One transaction as the owner of the schema, for migrations and first rows; row-level security is forced on it too."""
    connection = await patiently(lambda: asyncpg.connect(settings.url, timeout=settings.timeout_seconds), settings.timeout_seconds)
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL ROLE hansa_owner")
            yield connection
    finally:
        await connection.close()
