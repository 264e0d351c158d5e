"""What the platform's people do with a tenant that has a database to itself, cut off before each commit in turn: the change and its row in
the tenant's trail are both there or neither, the tenant's own database follows, and done again it is done once."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from dedicated.city import City, open_city, tenant
from hansa.apply.model import Asked, Item, Named, Owner, Unwanted
from hansa.apply.narrowing import Judges
from hansa.apply.service import Objects
from hansa.auth.model import Principal
from hansa.bus.accounts import Accounts, open_accounts
from hansa.db.pool import Connection, Database, open_database
from hansa.egress.policy import EgressPolicy
from hansa.errors import Unavailable
from hansa.plugins import loader
from hansa.secrets.variables import admitted
from hansa.tenants import mending, store
from hansa.tenants.deletion import Deletions
from hansa.tenants.messaging.service import Messaging
from hansa.tenants.service import Tenants, tenant_id
from hansa.tools import expressions
from stack import open_stack

NAME = "severed"
HOME = Principal(tenant_id=tenant_id("default"), tenant="default", name="key:people", roles=("platform-admin",))
INSIDE = msgspec.structs.replace(HOME, tenant_id=tenant_id(NAME), tenant=NAME, home="default")
BESIDE = msgspec.structs.replace(HOME, tenant_id=tenant_id("beside"), tenant="beside", home="default")
PERHAPS = range(1, 40)


class Killed(BaseException):
    """Nothing that is done in this process is done any more."""


class Cut:
    """Kills before the commit of this number; 0: never."""

    def __init__(self) -> None:
        self.at = 0
        self.commits = 0

    async def off(self, act: Callable[[], Awaitable[Any]], *, at: int) -> bool:
        """Whether it was killed before it was done."""
        self.at, self.commits = at, 0
        try:
            await act()
        except Killed:
            return True
        finally:
            self.at = 0
        return False


class Mortal(Database):
    """A database, with those of the tenants, whose transactions are cut off."""

    def __init__(self, database: Database, cut: Cut) -> None:
        self.__dict__.update(database.__dict__)
        self.__dict__["_own"] = {tenant_id(each.name): Mortal(each, cut) for each in database.own}
        self.trouble = None
        self._cut = cut

    @asynccontextmanager
    async def here(self, tenant_id: UUID) -> AsyncIterator[Connection]:
        async with super().here(tenant_id) as connection:
            yield connection
            self._cut.commits += 1
            if self._cut.commits == self._cut.at:
                raise Killed


class People:
    """Services over the databases of a city, in this process."""

    def __init__(self, city: City, admins: dict[str, asyncpg.Connection], database: Database, accounts: Accounts | None) -> None:
        """`admins`: superusers' connections by the tenant's name, "" to the platform's database."""
        self._admins = admins
        self.cut = Cut()
        self.database = database = Mortal(database, self.cut)
        self.messaging = messaging = Messaging(database, accounts)
        tenants = Tenants(database, "local", stale_seconds=60.0)
        self.told = asyncio.Event()
        self.deletions = Deletions(database, tenants, messaging, tell=self._tell)
        self._objects = Objects(
            database,
            loader.load(city.settings.plugins),
            _nobody,
            judges=Judges(flaw=expressions.flaw, answer_flaw=expressions.answer_flaw, issuers=EgressPolicy(), variables=admitted({}, "")),
            tenants=tenants,
            deletions=self.deletions,
        )

    async def _tell(self) -> None:
        self.told.set()

    @asynccontextmanager
    async def holding(self, database: str, table: str) -> AsyncIterator[None]:
        """Nobody else writes into a table."""
        async with self._admins[database].transaction():
            await self._admins[database].execute(f"LOCK TABLE hansa.{table} IN EXCLUSIVE MODE")
            yield

    async def apply(self, principal: Principal = HOME, name: str = NAME, **spec: Any) -> None:
        asked = await self._objects.prepare(principal, Asked([Item(tenant(name, **spec))]))
        async with self.database.tenant(principal.tenant_id) as connection:
            (result,) = await self._objects.apply(connection, principal, asked)
        assert result.action != "failed", result
        await self._objects.told(principal, applied=[name])

    async def take_over(self, owner: Owner) -> None:
        await self._objects.take_over(INSIDE, "Tenant", NAME, owner)

    async def close(self, policy: str) -> None:
        await self._objects.close_tenant(HOME, NAME, confirm=NAME, policy=policy)

    async def delete(self, principal: Principal) -> None:
        unwanted = Unwanted(Owner(), [Named("Tenant", NAME)], {}, allow_mass=True)
        async with self.database.tenant(principal.tenant_id) as connection:
            deleted = await self._objects.delete_all(connection, principal, unwanted)
        assert deleted.results[0].action != "failed", deleted
        await self._objects.told(principal, closed=deleted.closed)

    async def restore(self) -> None:
        await self.deletions.restore(HOME, NAME)

    async def revoke(self) -> None:
        with suppress(Unavailable):
            await self.messaging.revoke(INSIDE)

    async def stands(self) -> Any:
        """What the platform's database has of the tenant; that of its own is the same once nothing is half done."""
        async with self.database.here(tenant_id(NAME)) as connection:
            return await store.standing(connection)

    async def copied(self) -> Any:
        async with self.database.tenant(tenant_id(NAME)) as connection:
            return await store.standing(connection)

    async def rows(self, name: str, action: str) -> int:
        """Rows of this action about the tenant in the trail of a tenant, and those that are owed to it."""
        its, mine = self._admins.get(name, self._admins[""]), "tenant_id = $1 AND event ->> 'action' = $2"
        told = await its.fetch(f"SELECT FROM hansa.audit_events WHERE {mine}", tenant_id(name), action)
        taken = await its.fetch("SELECT id FROM hansa.audit_taken WHERE tenant_id = $1", tenant_id(name))
        owed = await self.fetch(f"SELECT id FROM hansa.audit_owed WHERE {mine}", tenant_id(name), action)
        return len(told) + len({row["id"] for row in owed} - {row["id"] for row in taken})

    async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        """Rows of the platform's database."""
        return await self._admins[""].fetch(sql, *arguments)

    async def revoked(self) -> Any:
        return await self.fetch("SELECT version FROM hansa.messaging_accounts WHERE tenant_id = $1", tenant_id(NAME))

    async def wiped(self) -> None:
        """Nothing was ever of the tenant."""
        await self.emptied("")
        await self.emptied(NAME)

    async def emptied(self, database: str) -> None:
        """One of its databases has nothing of the tenant."""
        connection = self._admins[database]
        await connection.execute("UPDATE hansa.tenants SET state = 'deleting' WHERE tenant_id = $1", tenant_id(NAME))
        await connection.execute(
            "INSERT INTO hansa.deletions (id, tenant, name, policy, requested_by) VALUES (gen_random_uuid(), $1, $2, 'Delete', 'test')",
            *(tenant_id(NAME), NAME),
        )
        while await connection.fetchval("SELECT hansa.tenant_purge($1, 5000)", tenant_id(NAME)):
            pass
        await connection.execute("SELECT hansa.tenant_remove($1)", tenant_id(NAME))
        await connection.execute("DELETE FROM hansa.deletions")


async def _nobody(*_: Any) -> Any:
    raise AssertionError("no ToolServer is applied here")


@pytest.fixture(scope="module")
def city(migrated: Path) -> Iterator[City]:
    folder = Path(tempfile.mkdtemp(prefix="hansa-city-"))
    with open_stack(folder, like=migrated) as stack, open_city(stack, NAME, "beside", running=False) as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def people(city: City) -> AsyncIterator[People]:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(city.settings.database))
        accounts = await stack.enter_async_context(open_accounts(city.settings.nats, "local", name="test"))
        admins = {name: await asyncpg.connect(url) for name, url in {"": city.stack.admin_url, **city.places}.items()}
        for each in admins.values():
            stack.push_async_callback(each.close)
        found = People(city, admins, database, accounts)
        await found.wiped()
        await found.apply(name="beside")
        yield found


Act = Callable[[People, int], Awaitable[Any]]


async def made(people: People, turn: int) -> None:
    await people.apply(displayName="as it was")


async def gone(people: People, turn: int) -> None:
    await people.wiped()
    await made(people, turn)


async def opened(people: People, turn: int) -> None:
    await made(people, turn) if await people.stands() is None else await people.restore()


async def archived(people: People, turn: int) -> None:
    await opened(people, turn)
    await people.close("Retain")


CASES: dict[str, tuple[Act, Act, str, list[str]]] = {
    "create": (lambda people, _: people.wiped(), lambda people, _: people.apply(), "tenant.created", [NAME, "default"]),
    "change": (
        made,
        lambda people, turn: people.apply(displayName=f"{turn}", quotas={"agents": 50 + turn}, namespaces=[f"{NAME}-{turn}"]),
        "tenant.changed",
        [NAME, "default"],
    ),
    "change-inside": (made, lambda people, turn: people.apply(INSIDE, displayName=f"{turn}", suspend=True), "tenant.changed", [NAME]),
    "take-over": (opened, lambda people, turn: people.take_over(Owner("git", f"https://{turn}")), "object.taken_over", [NAME]),
    "archive-beside": (opened, lambda people, _: people.delete(BESIDE), "tenant.archived", [NAME, "beside"]),
    "delete": (gone, lambda people, _: people.close("Delete"), "tenant.deleted", [NAME, "default"]),
    "restore": (archived, lambda people, _: people.restore(), "tenant.restored", [NAME, "default"]),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_change_and_its_row_are_both_there_or_neither(people: People, case: str) -> None:
    await _cut_everywhere(people, case)


async def test_a_row_that_was_lost_would_be_missed(people: People) -> None:
    with pytest.raises(AssertionError, match="done again after a kill"):
        await _cut_everywhere(people, "change-inside", losing=True)


async def _cut_everywhere(people: People, case: str, *, losing: bool = False) -> None:
    before, act, action, trails = CASES[case]
    changed = set[bool]()
    for turn in PERHAPS:
        await before(people, turn)
        count = partial(_counted, people, action, trails)
        was, stood = await count(), await people.stands()
        killed = await people.cut.off(partial(act, people, turn), at=turn)
        stands = await people.stands()
        done = int(stands != stood)
        changed.add(bool(done))
        assert await count() == [each + done for each in was], f"killed before commit {turn}: changed is {bool(done)}"
        if losing:
            await people.fetch("DELETE FROM hansa.audit_owed")
        await mending.settled(people.database, [NAME, "beside"])
        assert await people.copied() == stands or stands is None, f"its own database has not followed after a kill before commit {turn}"
        assert await people.fetch("SELECT FROM hansa.audit_owed") == []
        await act(people, turn)
        assert await count() == [each + 1 for each in was], f"done again after a kill before commit {turn}"
        assert await people.copied() == await people.stands()
        if not killed:
            assert turn > 3
            break
    else:
        raise AssertionError("it was never done")
    assert changed == {False, True}, "it was killed before, and after, what decides"


async def _counted(people: People, action: str, trails: list[str]) -> list[int]:
    return [await people.rows(name, action) for name in trails]


async def test_whom_its_nats_account_turns_away_is_told_once(people: People) -> None:
    await made(people, 0)
    for turn in PERHAPS:
        was, stood = await people.rows(NAME, "nats_credentials.revoked"), await people.revoked()
        killed = await people.cut.off(people.revoke, at=turn)
        done = await people.revoked() != stood
        assert await people.rows(NAME, "nats_credentials.revoked") == was + int(done), f"killed before commit {turn}"
        await mending.settled(people.database, [NAME])
        assert await people.rows(NAME, "nats_credentials.revoked") == was + int(done)
        if not killed:
            assert turn > 3
            break
    else:
        raise AssertionError("it was never done")


async def test_what_is_owed_is_written_once_however_many_bring_it(people: People) -> None:
    await made(people, 0)
    was = await people.rows(NAME, "tenant.changed")
    event = '{"action":"tenant.changed","actor":{"name":"test"},"origin":{},"outcome":"done","target":"Tenant/severed"}'
    sql = "INSERT INTO hansa.audit_owed (tenant_id, id, event) VALUES ($1, gen_random_uuid(), $2)"
    for _ in range(5):
        await people.fetch(sql, tenant_id(NAME), event)
    await asyncio.gather(*(mending.settle(people.database, tenant_id(NAME)) for _ in range(6)))
    assert await people.fetch("SELECT FROM hansa.audit_owed") == []
    assert await people.rows(NAME, "tenant.changed") == was + 5


async def test_a_database_in_place_of_one_that_was_lost_is_filled_by_people_alone(people: People) -> None:
    await made(people, 0)
    await people.emptied(NAME)
    await mending.settle(people.database, tenant_id(NAME))
    assert await people.copied() is None
    await people.apply(displayName="anew")
    assert await people.copied() == await people.stands()


async def test_that_a_tenant_is_closed_is_told_to_all_before_its_own_database_follows(people: People) -> None:
    await made(people, 0)
    async with people.holding(NAME, "api_keys"):
        closing = asyncio.create_task(people.close("Delete"))
        await asyncio.wait_for(people.told.wait(), 3)
        assert not closing.done()
    await closing
    assert await people.copied() == await people.stands()
