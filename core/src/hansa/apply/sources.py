"""What sources of objects tell of themselves: which commit of which repository was seen, and what is wrong with it. Nobody acts on it."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from hansa.apply import store
from hansa.apply.ownership import refuse_credentials
from hansa.apply.sight import READING, WRITING
from hansa.auth.model import Principal
from hansa.db.pool import Database
from hansa.errors import Conflict, NotFound

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
    """Sources of a tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, principal: Principal, source_id: str, told: ToldSource) -> str:
        """Keep what a source tells of itself, unless something newer is known; as JSON text. Raises `Conflict` when there are too many, and
        `Invalid`."""
        refuse_credentials(told.origin)
        errors = msgspec.json.encode(told.errors).decode().replace("\\u0000", "\\ufffd")
        told = msgspec.structs.replace(told, message=told.message.replace("\x00", "\ufffd"))
        async with self._database.tenant(principal.tenant_id) as connection:
            if await store.count_sources(connection, source_id) >= MOST:
                raise Conflict(f"the tenant has {MOST} sources already", hint="`hansa sources forget` removes one.")
            own = principal.reach(WRITING) is not None
            kept = await store.put_source(connection, source_id, told, errors=errors, by=principal.name, own=own)
        if kept is None:
            raise Conflict(
                f"somebody else tells of the source {source_id!r}", hint="One source, one key: a repository of several has several."
            )
        return kept

    async def page(self, principal: Principal, *, after: str, limit: int) -> tuple[list[str], str | None]:
        """Sources by their ids, as JSON texts, and where the next page begins."""
        async with self._database.tenant(principal.tenant_id) as connection:
            rows = await store.page_sources(connection, after, limit + 1, by=_own(principal, READING))
        return [row["body"] for row in rows[:limit]], rows[limit - 1]["id"] if len(rows) > limit else None

    async def forget(self, principal: Principal, source_id: str) -> None:
        """Forget a source. What it applied stays."""
        async with self._database.tenant(principal.tenant_id) as connection:
            if not await store.delete_source(connection, source_id, by=_own(principal, WRITING)):
                raise NotFound(f"there is no source {source_id!r}", hint="`hansa sources` lists them.")


def _own(principal: Principal, permission: str) -> str | None:
    """Whose sources alone a caller may do it with, who may not in the whole tenant: those of which it told itself."""
    return None if principal.reach(permission) is None else principal.name
