"""Makes a tenant of a bundle: the tenant itself, its sessions, then its objects, each in a transaction of its own.

What is there already is left as it is, so that an import that was cut off is simply made again. Warning: a bundle is believed, for its
digests have no key.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import msgspec

from hansa.apply.model import Applied, Asked, Item
from hansa.apply.service import Objects
from hansa.audit import service as audit
from hansa.audit.model import Action
from hansa.auth.model import Principal
from hansa.db.pool import Database
from hansa.errors import Conflict, Invalid, TooLarge
from hansa.runs import store as runs_store
from hansa.runs.leaving.bundle import KEYS, OBJECTS, SESSIONS, Head, Member, head_of, members
from hansa.runs.log.service import Archives
from hansa.tenants.service import tenant_id

ROUTE = "tenants:import"
BATCH = 500
SHOWN = 20


class Imported(msgspec.Struct, frozen=True):
    """What became of an import. `present`: sessions that were there already; `refused`: what was not taken and why, some of it; `keys`: API
    keys that the tenant had: their secrets are not exported, so new ones are to be made."""

    tenant: str
    sessions: int
    present: int
    objects: tuple[Applied, ...]
    failed: int
    keys: int
    refused: tuple[str, ...] = ()


class Importer:
    """Use `take`."""

    def __init__(self, database: Database, archives: Archives, objects: Objects) -> None:
        self._database = database
        self._archives = archives
        self._objects = objects

    async def take(self, principal: Principal, file: IO[bytes], *, name: str | None) -> Imported:
        """Read a bundle twice: whether it is whole, then into a tenant. Raises `Invalid` before anything is changed."""
        head = await asyncio.to_thread(_checked, file)
        tenant = name or head.name
        database = "Shared" if self._database.of(tenant_id(tenant)) is self._database else "Dedicated"
        (made,) = await self._apply(principal, [_tenant_item(head, tenant, database)])
        if made.action == "failed":
            raise Invalid(f"the tenant {tenant!r} can't be made: {made.errors[0].message}", errors=made.errors)
        inside = msgspec.structs.replace(principal, tenant_id=tenant_id(tenant), tenant=tenant)
        became: Counter[str] = Counter()
        refused: list[str] = []
        keys, manifests = 0, list[msgspec.Raw]()
        file.seek(0)
        for member in members(file):
            if member.name == KEYS:
                keys = len(msgspec.json.decode(member.whole(), type=list[msgspec.Raw]))
            elif member.name == OBJECTS:
                manifests = msgspec.json.decode(member.whole(), type=list[msgspec.Raw])
            elif member.name.startswith(SESSIONS):
                became[await self._session(inside, member, refused)] += 1
        # Last: an agent that is here already takes no past revisions of sessions.
        objects: list[Applied] = []
        for first in range(0, len(manifests), BATCH):
            objects += await self._apply(principal, [_item(each, tenant) for each in manifests[first : first + BATCH]])
        told = {"sessions": became["sessions"], "objects": len(objects)}
        async with self._database.tenant(principal.tenant_id) as connection:
            await audit.record(connection, principal.did(Action.TENANT_IMPORTED, f"Tenant/{tenant}", after=told))
        failed = became["refused"] + sum(each.action == "failed" for each in objects)
        return Imported(tenant, became["sessions"], became["present"], tuple(objects), failed, keys, tuple(refused[:SHOWN]))

    async def _apply(self, principal: Principal, items: list[Item]) -> list[Applied]:
        asked = await self._objects.prepare(principal, Asked(items))
        async with self._database.tenant(principal.tenant_id) as connection:
            results = await self._objects.apply(connection, principal, asked)
        await self._objects.told(principal, applied=[result.name for result in results if result.kind == "Tenant"])
        return results

    async def _session(self, principal: Principal, member: Member, refused: list[str]) -> str:
        """What became of a session: it is one of `sessions` now, was `present`, or is `refused`."""
        try:
            session = UUID(member.name.removeprefix(SESSIONS).removesuffix(".jsonl"))
            async with self._database.tenant(principal.tenant_id) as connection:
                if await runs_store.find_session(connection, session) is not None:
                    return "present"
            await self._archives.take(principal, _pieces(member), most=member.size, route=ROUTE, key=None)
        except (Conflict, Invalid, ValueError) as error:
            refused.append(f"{member.name}: {error}")
            return "refused"
        return "sessions"


async def _pieces(member: Member) -> AsyncIterator[bytes]:
    for piece in member.pieces():
        yield piece


def _checked(file: IO[bytes]) -> Head:
    """The head of a file that is a whole bundle. Raises `Invalid`."""
    file.seek(0)
    found = members(file)
    head = head_of(next(found, None))
    for member in found:
        if not member.name.startswith(SESSIONS):
            member.whole()
    return head


def _tenant_item(head: Head, name: str, database: str) -> Item:
    """The Tenant as the bundle has it; in which database it was is no matter here."""
    # Under another name it leaves its namespaces, which lead to one tenant, to the one that may still be there.
    spec = {key: value for key, value in (head.manifest or {}).get("spec", {}).items() if key != "namespaces" or name == head.name}
    spec |= {"isolation": {**spec.get("isolation", {}), "database": database}}
    return Item({"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": spec})


def _item(text: msgspec.Raw, tenant: str) -> Item:
    """A manifest in the tenant that is made."""
    manifest = msgspec.json.decode(text, type=dict[str, Any])
    return Item({**manifest, "metadata": {**manifest["metadata"], "namespace": tenant}})


async def spooled(file: IO[bytes], chunks: AsyncIterable[bytes], most: int) -> None:
    """Take in what is sent. Raises `TooLarge`."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > most:
            raise TooLarge(f"the export is larger than the {most} bytes that are taken", hint="Raise HANSA_SERVER_BUNDLE_BYTES.")
        await asyncio.to_thread(file.write, chunk)


@contextmanager
def spool(folder: Path) -> Iterator[IO[bytes]]:
    """A nameless file of a folder, which goes when the context ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        yield file
