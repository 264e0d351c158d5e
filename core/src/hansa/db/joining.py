"""One request over several databases: the platform's, and the own ones of the tenants that it acts in, each in one transaction.

A joined connection is like any other; `hansa.db.pool.enter_tenant` makes it that of the tenant's database. Each database has all of the
request or nothing. Own databases commit first, the platform's after them and the caller's connection last, so that a request that is cut
off in between has done nothing that its repetition does not find done. Must not know any table.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, cast
from uuid import UUID

from hansa.db.pool import Connection, Database, Routed, enter_here
from hansa.errors import Unavailable


class Joined(Routed):
    """Whatever is asked of it is asked of the connection that it is at."""

    def __init__(self, database: Database, stacks: tuple[AsyncExitStack, AsyncExitStack], connection: Connection, at: Database) -> None:
        """`stacks`: what ends when own databases commit, and what ends after them, when the platform's does."""
        self._database = database
        self._first, self._last = stacks
        self._connections = {at: connection}
        self._away: dict[Database, Unavailable] = {}
        self._at = connection
        self._open: list[Savepoint] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._at, name)

    def has_own(self, tenant_id: UUID) -> bool:
        return self._database.of(tenant_id) is not self._database

    async def enter(self, tenant_id: UUID, *, platform: bool = False) -> None:
        place = self._database if platform else self._database.of(tenant_id)
        if place in self._away:
            raise self._away[place]
        if place not in self._connections:
            try:
                stack = self._last if place is self._database else self._first
                self._connections[place] = await stack.enter_async_context(place.here(tenant_id))
            except Unavailable as error:
                self._away[place] = error
                raise
            for savepoint in self._open:
                await savepoint.extend(self._connections[place])
        self._at = self._connections[place]
        await enter_here(self._at, tenant_id)

    def transaction(self) -> "Savepoint":
        """What is done from its start on in any of the databases is undone with it."""
        return Savepoint(self._open, list(self._connections.values()))


class Savepoint:
    """A transaction within that of the request, in each database."""

    def __init__(self, around: "list[Savepoint]", connections: list[Connection]) -> None:
        self._around = around
        self._connections = connections
        self._parts: list[Any] = []

    async def extend(self, connection: Connection) -> None:
        """One more database is acted in."""
        part = connection.transaction()
        await part.start()
        self._parts.append(part)

    async def start(self) -> None:
        for connection in self._connections:
            await self.extend(connection)
        self._around.append(self)

    async def commit(self) -> None:
        self._around.remove(self)
        for part in self._parts:
            await part.commit()

    async def rollback(self) -> None:
        self._around.remove(self)
        for part in self._parts:
            await part.rollback()

    async def __aenter__(self) -> "Savepoint":
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await (self.commit() if kind is None else self.rollback())


@asynccontextmanager
async def joining(database: Database, connection: Connection, at: Database) -> AsyncIterator[Connection]:
    """`connection` is the caller's, in the database `at`, or joined already; which tenant it acts in afterwards is not said."""
    if not database.own or isinstance(connection, Routed):
        yield connection
        return
    async with AsyncExitStack() as last, AsyncExitStack() as first:
        yield cast(Connection, Joined(database, (first, last), connection, at))
