"""Keeps and finds the values that the log refers to: in PostgreSQL, the largest in the artifact store.

Must not know what the values mean. Warning: a value that the artifact store must have is there before anything refers to it.
"""

import asyncio
import hashlib
from collections.abc import Collection, Mapping
from uuid import UUID

from hansa.artifacts.content import Artifacts
from hansa.db.pool import Database
from hansa.errors import Damaged
from hansa.runs.log import store
from hansa.runs.log.store import Columns, ValueRow

RESTORE = "Restore it from a backup of the database."


class Values:
    """The values of all tenants."""

    def __init__(self, database: Database, artifacts: Artifacts, from_bytes: int) -> None:
        self._database = database
        self._artifacts = artifacts
        self._from_bytes = from_bytes

    async def columns(self, tenant_id: UUID, taken: Mapping[bytes, bytes]) -> Columns:
        """Values as the write that refers to them takes them along; those for the artifact store are there when this returns."""
        large = {digest: body for digest, body in taken.items() if len(body) > self._from_bytes}
        if large:
            await self._put_large(tenant_id, large)
        return _columns(taken, large)

    async def _put_large(self, tenant_id: UUID, large: Mapping[bytes, bytes]) -> None:
        # The row first, for it stops retention from deleting what is put next; nothing refers to it yet.
        async with self._database.tenant(tenant_id) as connection:
            wanted = await store.put_values(connection, tenant_id, None, _columns(large, large))
        await asyncio.gather(*(self._artifacts.put(tenant_id, digest, large[digest]) for digest in wanted))

    async def load(self, tenant_id: UUID, digests: Collection[bytes]) -> dict[bytes, bytes | Damaged]:
        """Values by digest, each verified: canonical JSON, or why it can't be had. One query, none for no digests."""
        if not digests:
            return {}
        async with self._database.tenant(tenant_id) as connection:
            rows = await store.find_values(connection, list(digests))
        bodies = await asyncio.gather(*(self._body(tenant_id, row) for row in rows))
        found: dict[bytes, bytes | Damaged] = {row.digest: body for row, body in zip(rows, bodies, strict=True)}
        for digest in set(digests) - found.keys():
            found[digest] = Damaged(f"the value sha256:{digest.hex()} is missing", hint=RESTORE)
        return found

    async def _body(self, tenant_id: UUID, row: ValueRow) -> bytes | Damaged:
        if row.body is None:
            try:
                return await self._artifacts.get(tenant_id, row.digest)
            except Damaged as error:
                return error
        body = row.body.encode()
        if hashlib.sha256(body).digest() == row.digest:
            return body
        return Damaged(f"the value sha256:{row.digest.hex()} has been changed: its {len(body)} bytes have another SHA-256", hint=RESTORE)


def _columns(taken: Mapping[bytes, bytes], large: Mapping[bytes, bytes]) -> Columns:
    """In the order of digests, so that writers of the same values never wait for each other in a circle."""
    ordered = sorted(taken.items())
    return Columns(
        [digest for digest, _ in ordered],
        [len(body) for _, body in ordered],
        [None if digest in large else body.decode() for digest, body in ordered],
    )
