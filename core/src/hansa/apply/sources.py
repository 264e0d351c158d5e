"""What sources of objects tell of themselves: which commit of which repository was seen, and what is wrong with it. Nobody acts on it."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from hansa.apply import store
from hansa.apply.ownership import PERMISSION, refuse_credentials
from hansa.apply.sight import READING, seen_in
from hansa.auth import store as key_store
from hansa.auth.model import Principal
from hansa.db.pool import Database
from hansa.errors import Conflict, NotFound
from hansa.ids import tenant_id as id_of

MOST = 200
"""Sources that a tenant may have."""
Line = Annotated[str, Meta(max_length=512, pattern=r"^[^\x00-\x1f\x7f]*$")]


class SourceError(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Something wrong in a source: where, and what."""

    message: Annotated[str, Meta(max_length=4096)]
    code: Line = ""
    path: Line = ""
    suggestion: Annotated[str, Meta(max_length=4096)] | None = None
    file: Line | None = None
    line: int | None = None
    column: int | None = None


class ToldSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a source tells: `origin` is that of its objects; `commit` what was last seen of `ref`; `state` one word for how it goes;
    `applied_at` when something was last applied, left out: as before."""

    origin: Line
    seen_at: Annotated[datetime, Meta(tz=True)]
    ref: Line = ""
    commit: Annotated[str, Meta(max_length=128, pattern=r"^[0-9A-Za-z._-]*$")] = ""
    state: Annotated[str, Meta(max_length=40, pattern=r"^[A-Za-z][A-Za-z-]*$")] = "unknown"
    message: Annotated[str, Meta(max_length=4096)] = ""
    errors: Annotated[list[SourceError], Meta(max_length=200)] = []
    applied_at: Annotated[datetime, Meta(tz=True)] | None = None


class Sources:
    """Sources of a tenant. What is told of one is its owner's: whoever told of it first, or a key that his was rotated into."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, principal: Principal, source_id: str, told: ToldSource) -> str:
        """Keep what a source tells of itself, unless something newer is known; as JSON text. Raises `Conflict` when there are too many, or
        it is somebody else's, and `Invalid`."""
        refuse_credentials(told.origin)
        errors = msgspec.json.encode(told.errors).decode().replace("\\u0000", "\\ufffd")
        told = msgspec.structs.replace(told, message=told.message.replace("\x00", "\ufffd"))
        mine = await self._names(principal)
        async with self._database.tenant(principal.tenant_id) as connection:
            if await store.count_sources(connection, source_id) >= MOST:
                raise Conflict(f"the tenant has {MOST} sources already", hint="`hansa sources forget` removes one.")
            if seen_in(principal) is not None and await store.owner_of_source(connection, source_id) == "":
                _refuse(principal, source_id, "", mine)
            owner, body = await store.put_source(connection, source_id, told, errors=errors, by=principal.name, owner=mine[0])
            _refuse(principal, source_id, owner, mine)
        return body

    async def page(self, principal: Principal, *, after: str, limit: int) -> tuple[list[str], str | None]:
        """Sources by their ids, as JSON texts, and where the next page begins. Who may not read the whole tenant's has its own."""
        mine = None if principal.reach(READING) is None else await self._names(principal)
        async with self._database.tenant(principal.tenant_id) as connection:
            rows = await store.page_sources(connection, after, limit + 1, owners=mine)
        return [row["body"] for row in rows[:limit]], rows[limit - 1]["id"] if len(rows) > limit else None

    async def forget(self, principal: Principal, source_id: str) -> None:
        """Forget a source. What it applied stays. Raises `NotFound`, and `Conflict` when it is somebody else's."""
        mine = await self._names(principal)
        async with self._database.tenant(principal.tenant_id) as connection:
            owner = await store.delete_source(connection, source_id)
            unseen = owner not in mine and seen_in(principal) is not None
            if owner is None or unseen:
                raise NotFound(f"there is no source {source_id!r}", hint="`hansa sources` lists them.")
            _refuse(principal, source_id, owner, mine)

    async def _names(self, principal: Principal) -> list[str]:
        """All that the caller is called as an owner, by its name today first: a key also as those that were rotated into it."""
        home = principal.home or principal.tenant
        kind, _, key = principal.name.partition(":")
        names = [principal.name]
        if kind == "key" and not principal.may(PERMISSION):
            async with self._database.tenant(id_of(home)) as connection:
                names += [f"key:{each}" for each in await key_store.predecessors(connection, key)]
        return [f"{home}/{name}" for name in names]


def _refuse(principal: Principal, source_id: str, owner: str, names: list[str]) -> None:
    """Raise `Conflict`, which undoes what was done, when a source is somebody else's. One that is nobody's is the whole tenant's."""
    everywhere = seen_in(principal) is None
    if (owner or not everywhere) and owner not in names and not principal.may(PERMISSION):
        said = owner if everywhere else "somebody else"
        raise Conflict(
            f"the source {source_id!r} is told of by {said}, and you are {names[0]}: choose another id",
            hint=f"Keys of one service account are one owner. Somebody with {PERMISSION} may `hansa sources forget {source_id}`.",
        )
