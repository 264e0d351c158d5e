"""Connections to PostgreSQL: an app pool under row-level security and a small system pool, in the platform's database and in each one
that a tenant has to itself.

The tenant is set on the connection, in the transaction, never in the query; which database it is follows from the tenant. Must not know
any table. Warning: a bare connection of the app pool sees zero rows; that is meant.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import msgspec

from hansa.db.dedicated import read_dedicated
from hansa.db.lending import Lender
from hansa.errors import Misconfigured, Unavailable
from hansa.ids import tenant_id as id_of
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


class Trouble(msgspec.Struct, frozen=True):
    """Why a tenant's own database is not worked with: `reason` of the condition DatabaseReady, and what is said of it."""

    reason: str
    message: str


class Database:
    """The two pools of a process in one PostgreSQL. That of the platform knows those of tenants that have one to themselves; what is asked
    of it by `tenant` or `of` goes to the right one, anything else to itself. Use `open_database`."""

    name: str = ""
    """The tenant whose own it is; empty: the platform's."""
    trouble: Trouble | None = None
    """Why it is not to be used now: then whatever is asked of it is refused at once, and nobody waits for it."""
    _own: Mapping[UUID, "Database"] = MappingProxyType({})

    def __init__(
        self, app: Lender, system: Lender, timeout: float, *, name: str = "", own: Mapping[UUID, "Database"] | None = None
    ) -> None:
        self._app = app
        self._system = system
        self._timeout = timeout
        self.name = name
        self._own = dict(own or {})

    @property
    def own(self) -> tuple["Database", ...]:
        """The databases of tenants that have one to themselves."""
        return tuple(self._own.values())

    @property
    def every(self) -> tuple["Database", ...]:
        """This one and those."""
        return (self, *self._own.values())

    @property
    def bell(self) -> bytes:
        """What a doorbell says when there is something to do in this database."""
        return self.name.encode()

    def of(self, tenant_id: UUID) -> "Database":
        """Where the rows of a tenant are."""
        return self._own.get(tenant_id, self)

    def expect(self, tenant_id: UUID, place: str) -> None:
        """Raise `Unavailable` unless this process looks for the tenant where it is (`Shared` or `Dedicated`, as its row says)."""
        if (place == "Dedicated") != (tenant_id in self._own):
            told = "has its own database, which this process does not know" if place == "Dedicated" else "is in the platform's database now"
            raise Unavailable(
                f"the tenant {told}",
                hint="HANSA_DATABASE_DEDICATED_FILE names its database; each process reads it at its start.",
                retry_after=5.0,
            )

    def untroubled(self, *, timeout: float) -> "Database":
        """The same pools, to find out whether they can be used."""
        return Database(self._app, self._system, timeout, name=self.name)

    def leave(self, tenant_id: UUID) -> None:
        """The tenant is in this database after all."""
        self._own = {known: database for known, database in self._own.items() if known != tenant_id}

    def tenant(self, tenant_id: UUID) -> AbstractAsyncContextManager[Connection]:
        """A transaction that sees this tenant's rows and no others; commits at the end, rolls back on an exception."""
        return self.of(tenant_id).here(tenant_id)

    @asynccontextmanager
    async def here(self, tenant_id: UUID) -> AsyncIterator[Connection]:
        """The same in this very database: of a tenant with one of its own, what the platform keeps of it."""
        self._usable()
        async with translated(), self._app.lent(self._timeout) as connection, connection.transaction():
            await enter_tenant(connection, tenant_id)
            yield connection

    async def call(self, sql: str, *arguments: Any) -> Any:
        """The single value of one statement by the app, in one round trip: for functions that set the tenant themselves."""
        self._usable()
        async with translated(), self._app.lent(self._timeout) as connection:
            return await connection.fetchval(sql, *arguments)

    async def call_row(self, sql: str, *arguments: Any) -> asyncpg.Record | None:
        """The first row of one statement by the app, in one round trip."""
        self._usable()
        async with translated(), self._app.lent(self._timeout) as connection:
            return await connection.fetchrow(sql, *arguments)

    async def call_rows(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of one statement by the app, in one round trip."""
        self._usable()
        async with translated(), self._app.lent(self._timeout) as connection:
            return await connection.fetch(sql, *arguments)

    async def system(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Rows of one statement by the system role, in this database."""
        self._usable()
        async with translated(), self._system.lent(self._timeout) as connection:
            return await connection.fetch(sql, *arguments)

    @asynccontextmanager
    async def system_transaction(self) -> AsyncIterator[Connection]:
        """A transaction of the system role in this database; commits at the end, rolls back on an exception."""
        self._usable()
        async with translated(), self._system.lent(self._timeout) as connection, connection.transaction():
            yield connection

    def _usable(self) -> None:
        if self.trouble is not None:
            raise Unavailable(
                f"the database of tenant {self.name!r} can't be used: {self.trouble.message}", hint="Try again shortly.", retry_after=1.0
            )


class Routed(ABC):
    """A connection that may be in any of several databases (`hansa.db.joining`)."""

    @abstractmethod
    def has_own(self, tenant_id: UUID) -> bool:
        """Whether the tenant has a database to itself."""

    @abstractmethod
    async def enter(self, tenant_id: UUID, *, platform: bool = False) -> None:
        """Go where the tenant's rows are, or to what the platform keeps of it. Raises `Unavailable`, at once where it did before."""


async def enter_tenant(connection: Connection, tenant_id: UUID) -> None:
    """From here to the end of its transaction, or until the next call, the connection sees this tenant's rows and no others."""
    if isinstance(connection, Routed):
        await connection.enter(tenant_id)
    else:
        await enter_here(connection, tenant_id)


async def enter_here(connection: Connection, tenant_id: UUID) -> None:
    """The same in the database that the connection is in, whichever that is."""
    await connection.execute("SELECT set_config('hansa.tenant', $1, true)", str(tenant_id))


async def enter_platform(connection: Connection, tenant_id: UUID) -> None:
    """The same of what the platform's database keeps of the tenant, wherever its rows are."""
    if isinstance(connection, Routed):
        await connection.enter(tenant_id, platform=True)
    else:
        await enter_tenant(connection, tenant_id)


async def enter_each(connection: Connection, tenant_id: UUID) -> AsyncIterator[None]:
    """What the platform keeps of the tenant, then the tenant's own database, if it has one: for what is kept in both."""
    await enter_platform(connection, tenant_id)
    yield
    if has_own(connection, tenant_id):
        await enter_tenant(connection, tenant_id)
        yield


def has_own(connection: Connection, tenant_id: UUID) -> bool:
    """Whether the tenant has a database to itself, as far as the connection knows any but its own."""
    return isinstance(connection, Routed) and connection.has_own(tenant_id)


async def _leave(_: Any) -> None:
    """What is done with a connection that goes back to its pool: nothing. All settings are a transaction's own, so there is nothing to
    reset, and a transaction left open is rolled back by asyncpg itself; it would cost a round trip."""


@asynccontextmanager
async def open_database(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """Open both pools; waits for a server that is only just starting, up to the timeout. A tenant's own database is connected to when it
    is asked for something, and not before it was looked at (`hansa.tenants.watching`)."""
    if not settings.app_url or not settings.system_url:
        raise Misconfigured(
            "no database is configured: HANSA_DATABASE_APP_URL and HANSA_DATABASE_SYSTEM_URL are both needed",
            hint="`hansa up` sets them; with your own server run `hansa migrate` first (docs/getting-started.md).",
        )
    timeout, own = settings.timeout_seconds, dict[UUID, Database]()
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(_pool(settings.app_url, settings.pool_size, timeout))
        system = await stack.enter_async_context(_pool(settings.system_url, 2, timeout))
        for name, urls in read_dedicated(settings.dedicated_file).items():
            its_app = await stack.enter_async_context(_pool(urls.app_url, settings.pool_size, timeout, at_once=0))
            its_system = await stack.enter_async_context(_pool(urls.system_url, 2, timeout, at_once=0))
            own[id_of(name)] = database = Database(its_app, its_system, timeout, name=name)
            database.trouble = Trouble("Unreachable", "it has not been looked at yet")
        yield Database(app, system, timeout, own=own)


@asynccontextmanager
async def _pool(url: str, size: int, timeout: float, *, at_once: int = 1) -> AsyncIterator[Lender]:
    pool = await patiently(
        lambda: asyncpg.create_pool(
            url,
            min_size=at_once,
            max_size=size,
            timeout=timeout,
            command_timeout=timeout,
            reset=_leave,
            # A plan that was made while a table was empty must not read it whole for ever.
            server_settings={"application_name": "hansa", "timezone": "UTC", "enable_seqscan": "off"},
        ),
        timeout,
    )
    lender = Lender(pool, keep=(size + 1) // 2)
    try:
        yield lender
    finally:
        try:
            async with asyncio.timeout(timeout):
                await lender.close()
                await pool.close()
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
