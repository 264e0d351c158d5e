"""Keeps and finds the values that the log refers to: in PostgreSQL, the largest in the artifact store.

Must not know what the values mean. Warning: a value that the artifact store must have is there before anything refers to it.
"""

import asyncio
import hashlib
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

import msgspec

from hansa.artifacts.content import Artifacts
from hansa.db.pool import Database
from hansa.errors import Damaged, TooLarge
from hansa.runs.log import store
from hansa.runs.log.store import ValueRow
from hansa.runs.values import columns

FREE = "Raise quotas.storageBytes of the Tenant, or wait until old sessions are removed; `hansa budget` shows what is kept."
RESTORE = "Restore it from a backup of the database."


class Values:
    """The values of all tenants."""

    def __init__(self, database: Database, artifacts: Artifacts, from_bytes: int) -> None:
        self._database = database
        self._artifacts = artifacts
        self._from_bytes = from_bytes

    def large(self, taken: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Those of the values that belong into the artifact store."""
        return {digest: body for digest, body in taken.items() if len(body) > self._from_bytes}

    async def put_large(self, tenant_id: UUID, large: Mapping[bytes, bytes]) -> int:
        """Put values into the artifact store, for a write that refers to them; within a day it must come. How many were put."""
        # The row first, for it stops retention from deleting what is put next; nothing refers to it yet.
        async with self._database.tenant(tenant_id) as connection:
            wanted = await store.put_values(connection, tenant_id, columns(large, large))
        await asyncio.gather(*(self._artifacts.put(tenant_id, digest, large[digest]) for digest in wanted))
        return len(wanted)

    async def keep(self, tenant_id: UUID, taken: Mapping[bytes, bytes]) -> None:
        """Keep values that somebody sends by themselves; within a day something must refer to them. Raises `TooLarge` when the tenant may
        not keep so much more."""
        if not taken:
            return
        async with self._database.tenant(tenant_id) as connection:
            refused, wanted = await store.keep_values(connection, tenant_id, columns(taken, self.large(taken)))
        if refused is not None:
            raise full(msgspec.json.decode(refused))
        await asyncio.gather(*(self._artifacts.put(tenant_id, digest, taken[digest]) for digest in wanted))

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


def full(told: dict[str, Any]) -> TooLarge:
    """What is said to whoever would keep more than the tenant may, by what hansa.storage_refusal tells."""
    text = f"the tenant keeps {told['used']} of {told['bound']} bytes (quotas.storageBytes), and this needs at least {told['needed']} more"
    return TooLarge(text, hint=FREE)
