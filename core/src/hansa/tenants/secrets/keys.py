"""A tenant's data keys, unwrapped when they are needed and kept in memory for some minutes.

Warning: while they are kept, a key provider that is away, or that was told to refuse us, goes unnoticed for up to `CACHE_SECONDS`. A data
key whose row is deleted is of no use at once, for its row is read with each secret.
"""

from collections import OrderedDict
from uuid import UUID

from hansa import clock
from hansa.audit.model import AuditEvent
from hansa.audit.service import record
from hansa.db.pool import Connection, Database
from hansa.secrets import envelope
from hansa.secrets.keyring import Keyring, StoredKey
from hansa.tenants.secrets import store
from hansa.tenants.secrets.model import DataKey

CACHE_SECONDS = 300.0
CACHE_KEYS = 1000


class DataKeys:
    """Makes and opens data keys. Methods raise `SecretsAway` or `SecretsRefused` when the key provider does not do its part."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring
        self._open: OrderedDict[tuple[UUID, bytes], tuple[float, bytes]] = OrderedDict()

    async def ensure(self, tenant_id: UUID) -> DataKey:
        """The data key that encrypts now, made if there is none yet. No transaction is open while the key provider is asked."""
        async with self._database.tenant(tenant_id) as connection:
            found = await store.newest_key(connection)
        return found or await self.make(tenant_id, 1)

    async def make(self, tenant_id: UUID, generation: int, *told: AuditEvent) -> DataKey:
        """The data key of a generation that comes next, made unless another process was first; `told` to the audit trail with it."""
        stored = await self._keyring.wrap(envelope.new_data_key(), tenant_id.hex)
        async with self._database.tenant(tenant_id) as connection:
            await store.lock_keys(connection)
            newest = await store.newest_key(connection)
            if newest is not None and newest.generation >= generation:
                return newest
            await store.insert_key(connection, generation, stored)
            await record(connection, *told)
        return DataKey(generation, stored.kek, stored.key_id, stored.wrapped)

    async def open(self, tenant_id: UUID, stored: StoredKey) -> bytes:
        """A data key in the clear. Never write it anywhere."""
        name = (tenant_id, stored.wrapped)
        known = self._open.get(name)
        if known is not None and known[0] > clock.monotonic():
            return known[1]
        key = await self._keyring.unwrap(stored, tenant_id.hex)
        self._open[name] = (clock.monotonic() + CACHE_SECONDS, key)
        while len(self._open) > CACHE_KEYS:
            self._open.popitem(last=False)
        return key

    def forget(self) -> None:
        """Ask the key provider again for every key."""
        self._open.clear()

    async def shred(self, connection: Connection, tenant_id: UUID) -> None:
        """Destroy a tenant's secrets with its data keys, in the caller's transaction. There is no way back."""
        await store.shred(connection)
        for name in [each for each in self._open if each[0] == tenant_id]:
            del self._open[name]
