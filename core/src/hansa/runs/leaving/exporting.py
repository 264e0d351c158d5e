"""Writes a tenant as a bundle, member by member.

A member's size stands before it: so a session is written to a nameless file first, of which what is beyond a piece lies on the disk.
"""

import hashlib
import tempfile
from collections.abc import AsyncIterator
from uuid import UUID

import msgspec

from hansa import clock
from hansa.auth import store as key_store
from hansa.auth.model import Principal
from hansa.db.pool import Database
from hansa.errors import NotFound
from hansa.runs.leaving import store
from hansa.runs.leaving.bundle import FORMAT, KEYS, OBJECTS, PIECE, SESSIONS, TENANT, Head, Writer, padding
from hansa.runs.log import exporting
from hansa.runs.log.keeping import Values

PAGE = 200
EXPORTER = "tenant-export"
"""Name of the principal that reads what is exported."""


async def members(database: Database, values: Values, tenant_id: UUID, name: str) -> AsyncIterator[bytes]:
    """The bundle of a tenant, piece by piece. Raises `Damaged` where a value can't be had: what was written then has no end."""
    now = clock.now()
    writer = Writer(now.timestamp())
    principal = Principal(tenant_id, name, EXPORTER, ())
    async with database.tenant(tenant_id) as connection:
        manifests = [msgspec.json.decode(text) for text in await store.manifests(connection)]
        own = next((each for each in manifests if each["kind"] == "Tenant"), None)
    yield writer.member(TENANT, msgspec.json.encode(Head(FORMAT, name, now.isoformat(), own)))
    yield writer.member(KEYS, b"[" + b",".join([text.encode() async for text in _keys(database, tenant_id)]) + b"]")
    yield writer.member(OBJECTS, msgspec.json.encode([each for each in manifests if each is not own]))
    async for session in _sessions(database, tenant_id):
        try:
            found = await exporting.snapshot(database, principal, session)
        except NotFound:
            continue  # retention has it, since it was listed
        async for piece in pieces(writer, f"{SESSIONS}{session}.jsonl", exporting.lines(database, values, principal, found)):
            yield piece
    yield writer.end()


async def pieces(writer: Writer, name: str, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A member with these lines."""
    digest = hashlib.sha256()
    with tempfile.SpooledTemporaryFile(max_size=PIECE) as file:
        async for text in lines:
            file.write(text)
            digest.update(text)
        size = file.tell()
        file.seek(0)
        yield writer.begin(name, size, digest.digest())
        while piece := file.read(PIECE):
            yield piece
        yield padding(size)


async def _keys(database: Database, tenant_id: UUID) -> AsyncIterator[str]:
    after = ("", "")
    while True:
        async with database.tenant(tenant_id) as connection:
            rows = await key_store.page_keys(connection, after, PAGE)
        for row in rows:
            yield row["body"]
        if len(rows) < PAGE:
            return
        after = (rows[-1]["name"], rows[-1]["id"])


async def _sessions(database: Database, tenant_id: UUID) -> AsyncIterator[UUID]:
    after = UUID(int=0)
    while True:
        async with database.tenant(tenant_id) as connection:
            found = await store.session_ids(connection, after, PAGE)
        for session in found:
            yield session
        if len(found) < PAGE:
            return
        after = found[-1]
