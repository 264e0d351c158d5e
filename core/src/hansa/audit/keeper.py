"""What a worker does for the audit trail: seals the ends of chains outside, makes partitions, removes weeks that are old enough.

One worker at a time, by a lock in the database. Killed anywhere, it is done again: a checkpoint has one name, whoever writes it. Nothing is
removed that no checkpoint covers, nor without a signed statement of what it was.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import msgspec
import structlog

from hansa import clock
from hansa.audit import store
from hansa.audit.checkpoints import Checkpoint, Outside, open_outside, signed
from hansa.audit.signing import Signer, read_signer
from hansa.audit.store import End
from hansa.db.pool import Connection, Database
from hansa.errors import Unavailable
from hansa.settings import AuditSettings, Settings

log = structlog.stdlib.get_logger("hansa.audit")
ROWS = 1000
"""So many rows without a checkpoint want one before the time is over."""
TENANTS, ABREAST = 500, 8
WEEKS_AHEAD = 8
LONGEST_PAUSE = 15.0


class Keeper:
    """One process's share, of one database. Without a signer it only makes partitions."""

    def __init__(self, database: Database, outside: Outside, signer: Signer | None, settings: AuditSettings) -> None:
        self._outside = outside
        self._signer = signer
        self._database = database
        self._settings = settings

    async def run(self) -> None:
        """Work until cancelled. What is away is waited for."""
        if self._signer is None:
            log.warning("audit.not_sealed", hint="Set HANSA_AUDIT_KEY_FILE: without checkpoints outside a superuser can hash a trail anew.")
        pause = max(0.2, min(LONGEST_PAUSE, self._settings.seal_seconds / 4))
        while True:
            try:
                await self.sweep()
            except Unavailable as error:
                log.warning("audit.sweep_waits", error=error.detail)
            # A defect of ours: told each time, and no reason to seal nothing any more once it has passed.
            except Exception:
                log.exception("audit.sweep_broke")
            await asyncio.sleep(pause)

    async def sweep(self) -> None:
        """Everything that is due now. Raises `Unavailable` when the database or the place outside is away."""
        await store.make_partitions(self._database, WEEKS_AHEAD)
        while await self.seal():
            pass
        while await self.remove():
            pass

    async def seal(self) -> bool:
        """Write the checkpoints that are due, a bounded number; whether there may be more."""
        if self._signer is None:
            return False
        async with self._database.system_transaction() as connection:
            if not await store.lock(connection):
                return False
            found = await store.unsealed(connection, self._settings.seal_seconds, rows=ROWS, limit=TENANTS)
            await self._keep(self._signer, found, why="sealed")
            if found:
                await store.sealed(connection, [(row.tenant_id, row.seq) for row in found])
        return len(found) == TENANTS

    async def remove(self) -> bool:
        """Remove the oldest week, if it is old enough and all of it is sealed; whether one was removed."""
        if self._signer is None or self._settings.retention_days <= 0:
            return False
        async with self._database.system_transaction() as connection:
            if not await store.lock(connection):
                return False
            partition = await store.oldest(connection, clock.now() - timedelta(days=self._settings.retention_days))
            if partition is None:
                return False
            ends = await store.ends(connection, partition)
            if not all(row.sealed for row in ends):
                log.warning("audit.removal_waits", partition=partition, reason="its last rows have no checkpoint yet")
                return False
            return await self._drop(connection, self._signer, partition, ends)

    async def _drop(self, connection: Connection, signer: Signer, partition: str, ends: Sequence[End]) -> bool:
        """Outside first: a statement of something that is still there does no harm."""
        statements = await self._keep(signer, ends, why="dropped")
        for row, statement in zip(ends, statements, strict=True):
            text = msgspec.json.encode(statement, order="sorted").decode()
            await store.set_anchor(connection, row.tenant_id, row.seq, digest=row.hash, statement=text)
        dropped = await store.drop_partition(connection, partition)
        if dropped:
            log.info("audit.partition_removed", partition=partition, tenants=len(ends))
        return dropped

    async def _keep(self, signer: Signer, rows: Sequence[End], *, why: str) -> list[Checkpoint]:
        now, slots = clock.now().isoformat(timespec="seconds"), asyncio.Semaphore(ABREAST)

        async def keep(row: End) -> Checkpoint:
            made = Checkpoint(tenant=str(row.tenant_id), seq=row.seq, at=row.told_at, hash=row.hash, made_at=now, why=why)
            statement = signed(made, signer)
            async with slots:
                await self._outside.keep(statement)
            return statement

        return await asyncio.gather(*(keep(row) for row in rows))


@asynccontextmanager
async def keeping(database: Database, settings: Settings) -> AsyncIterator[None]:
    """Have the audit trail sealed and kept meanwhile. Raises `Misconfigured`."""
    outside, signer = open_outside(settings), read_signer(settings.audit.key_file)
    keepers = [(each.name, Keeper(each, outside, signer, settings.audit)) for each in database.every]
    tasks = [asyncio.create_task(keeper.run(), name=f"audit.keeper {name}".rstrip()) for name, keeper in keepers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
