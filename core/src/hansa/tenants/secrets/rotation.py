"""Changing keys while everything goes on: the data key of one tenant, and the key-encryption key of all.

Every step is a transaction of its own and safe to repeat: killed anywhere, all secrets are readable, and the next request goes on.
"""

from uuid import UUID

from hansa import clock
from hansa.audit.model import Action
from hansa.audit.service import record
from hansa.auth.model import Principal
from hansa.db.pool import Database
from hansa.errors import Conflict, Damaged, Unavailable
from hansa.secrets import envelope
from hansa.secrets.failures import SecretsRefused
from hansa.secrets.keyring import Keyring, StoredKey
from hansa.tenants.secrets import store
from hansa.tenants.secrets.keys import DataKeys
from hansa.tenants.secrets.model import DataKey, FailedKey, Progress, Sealed, Wrapping

WORK_SECONDS = 3.0
"""How long one request works; what is left is for the next."""
BATCH = 50
"""Rows that one transaction changes."""
MOST_SHOWN = 100


class Rotation:
    """Changes data keys and the keys that wrap them."""

    def __init__(self, database: Database, keys: DataKeys, keyring: Keyring, *, batch: int = BATCH) -> None:
        self._database = database
        self._batch_size = batch
        self._keys = keys
        self._keyring = keyring

    async def progress(self, principal: Principal) -> Progress:
        """How far the change of the tenant's data key has come."""
        async with self._database.tenant(principal.tenant_id) as connection:
            newest = await store.newest_key(connection)
            if newest is None:
                return Progress(0, 0, 0, finished=True)
            total, left = await store.count_sealed(connection, newest.generation)
        return Progress(newest.generation, total, left, finished=left == 0)

    async def rotate(self, principal: Principal, generation: int | None) -> Progress:
        """Make the data key of the next generation, unless it is there, and seal older versions with it for some seconds.

        Raises `Conflict` when `generation` is neither the newest nor the next.
        """
        newest = await self._keys.ensure(principal.tenant_id)
        wanted = newest.generation + 1 if generation is None else generation
        if wanted not in (newest.generation, newest.generation + 1):
            raise Conflict(
                f"generation {wanted} is neither the newest ({newest.generation}) nor the next", hint="Ask for the state and begin anew."
            )
        if wanted > newest.generation:
            told = principal.did(Action.DATA_KEY_ROTATED, "DataKey", after={"generation": wanted})
            newest = await self._keys.make(principal.tenant_id, wanted, told)
        damaged: set[str] = set()
        until = clock.monotonic() + WORK_SECONDS
        while await self._batch(principal.tenant_id, newest, damaged) and clock.monotonic() < until:
            pass
        async with self._database.tenant(principal.tenant_id) as connection:
            await store.lock_keys(connection)
            await store.drop_unused_keys(connection)
            total, left = await store.count_sealed(connection, newest.generation)
        return Progress(newest.generation, total, left, tuple(sorted(damaged)), finished=left == len(damaged))

    async def _batch(self, tenant_id: UUID, newest: DataKey, damaged: set[str]) -> bool:
        """Seal some older versions anew; false: there are none that nobody else is at work on."""
        async with self._database.tenant(tenant_id) as connection:
            known = await store.data_keys(connection)
        # Before rows are locked: the key provider may be slow.
        opened = {key.generation: await self._keys.open(tenant_id, key.stored) for key in known}
        async with self._database.tenant(tenant_id) as connection:
            found = await store.behind(connection, newest.generation, skip=sorted(damaged), limit=self._batch_size)
            anew: list[Sealed] = []
            for each in found:
                bound = envelope.binding(tenant_id, each.name, each.version)
                try:
                    value = envelope.unseal(opened[each.generation], each.sealed, bound)
                except (Damaged, KeyError):
                    damaged.add(f"{each.name} v{each.version}")
                    continue
                sealed = envelope.seal(opened[newest.generation], value, bound)
                anew.append(Sealed(each.name, each.version, newest.generation, sealed))
            await store.reseal(connection, anew)
        return bool(found)

    async def wrapping(self) -> Wrapping:
        """How far the data keys of all tenants have come under the current key-encryption key."""
        kek, key_id = await self._keyring.current()
        total, left = await self._count(kek, key_id)
        return Wrapping(kek, key_id, total, left, finished=left == 0)

    async def _count(self, kek: str, key_id: str) -> tuple[int, int]:
        """Over all databases. Raises `Unavailable` when one of them is away: nobody can say that it is finished then."""
        counts = [await store.count_keys(each, kek, key_id) for each in self._database.every]
        return sum(total for total, _ in counts), sum(left for _, left in counts)

    async def rewrap(self, principal: Principal) -> Wrapping:
        """Bring data keys of all tenants under the current key-encryption key, for some seconds."""
        kek, key_id = await self._keyring.current()
        until, failed, away = clock.monotonic() + WORK_SECONDS, list[FailedKey](), list[Unavailable]()
        for each in self._database.every:
            try:
                await self._rewrap_all(each, (kek, key_id), failed, until)
            except Unavailable as error:  # all others first
                away.append(error)
        for error in away:
            raise error
        total, left = await self._count(kek, key_id)
        async with self._database.tenant(principal.tenant_id) as connection:
            await record(
                connection, principal.did(Action.DATA_KEYS_REWRAPPED, f"KeyEncryptionKey/{kek}", after={"total": total, "left": left})
            )
        return Wrapping(kek, key_id, total, left, tuple(failed[:MOST_SHOWN]), finished=left <= len(failed))

    async def _rewrap_all(self, database: Database, key: tuple[str, str], failed: list[FailedKey], until: float) -> None:
        at = (UUID(int=0), 0)
        while clock.monotonic() < until:
            found = await store.other_keys(database, *key, after=at, limit=self._batch_size)
            for tenant_id, generation in found:
                at = (tenant_id, generation)
                try:
                    await self._rewrap(tenant_id, generation)
                except SecretsRefused as error:
                    async with self._database.tenant(tenant_id) as connection:
                        failed.append(FailedKey(await store.tenant_name(connection), generation, error.detail))
            if not found:
                break

    async def _rewrap(self, tenant_id: UUID, generation: int) -> None:
        async with self._database.tenant(tenant_id) as connection:
            known = {key.generation: key.stored for key in await store.data_keys(connection)}
        before: StoredKey | None = known.get(generation)
        if before is None:
            return  # no longer needed, and dropped
        after = await self._keyring.rewrap(before, tenant_id.hex)
        async with self._database.tenant(tenant_id) as connection:
            await store.replace_key(connection, generation, before=before, after=after)
