"""The control plane as `hansa sync` and `hansa plan` see it: the REST API, for one source, from an event loop.

Must not know what is applied, nor when. The client blocks, so each request has a thread.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from hansa.apply.model import Applied
from hansa.apply.sync.model import Item, Name, Owned, Record
from hansa.cli.client import Api, Json, part
from hansa.cli.output import clean, short
from hansa.errors import FieldError

MANAGER = "git"
MESSAGE, NAME = 4000, 500
"""Characters of texts and of names that the control plane keeps of a source."""
EVERYWHERE = "*"
"""The objects of all tenants in which the key may act."""


class SourceApi:
    """Implements `Api` and `Planner` of `hansa.apply.sync.model`."""

    def __init__(self, api: Api, origin: str) -> None:
        self._api = api
        self._origin = origin
        self._id = hashlib.sha256(origin.encode()).hexdigest()[:32]

    async def record(self) -> Record | None:
        found = await asyncio.to_thread(self._api.entries, "/v1/sources", {}, None)
        mine = next((each for each in found if each["id"] == self._id), None)
        if mine is None:
            return None
        errors = [{"path": "", "code": "", **error} for error in mine["errors"]]
        return msgspec.convert({**mine, "errors": errors}, Record)

    async def keep(self, record: Record) -> None:
        body = {name: value for name, value in msgspec.to_builtins(record).items() if value is not None}
        body |= {"message": short(clean(record.message), MESSAGE), "errors": [_told(error) for error in record.errors]}
        await asyncio.to_thread(self._api.put, f"/v1/sources/{self._id}", body)

    async def owned(self) -> list[Owned]:
        query = {"manager": MANAGER, "origin": self._origin, "namespace": EVERYWHERE}
        found = await asyncio.to_thread(self._api.entries, "/v1/objects", query, None)
        return [_owned(each) for each in found]

    async def apply(self, commit: str, items: Sequence[Item]) -> list[Applied]:
        return await self._asked("/v1/objects:apply", commit, objects=[sent(item) for item in items])

    async def delete(self, commit: str, names: Sequence[Name], *, allow_mass_delete: bool) -> list[Applied]:
        objects = [_named(name) for name in names]
        return await self._asked("/v1/objects:delete", commit, objects=objects, allow_mass_delete=allow_mass_delete)

    async def plan(self, commit: str, items: Sequence[Item], deleted: Sequence[Name]) -> list[Applied]:
        return await self._asked(
            "/v1/objects:plan", commit, objects=[sent(item) for item in items], delete=[_named(name) for name in deleted]
        )

    async def _asked(self, path: str, commit: str, **more: Any) -> list[Applied]:
        body = {"manager": MANAGER, "origin": self._origin, "commit": commit, **more}
        answer = await asyncio.to_thread(self._api.post, path, body)
        return msgspec.convert(answer["results"], list[Applied])


def _told(error: FieldError) -> Json:
    """An error as the control plane keeps it: no longer, and without anything invisible in names."""
    found = {name: value for name, value in msgspec.to_builtins(error).items() if value is not None}
    lengths = {"message": MESSAGE, "suggestion": MESSAGE, "code": NAME, "path": NAME, "file": NAME}
    return {name: short(clean(value), lengths[name]) if isinstance(value, str) else value for name, value in found.items()}


def sent(item: Item) -> Json:
    """An object as requests have it."""
    return {"manifest": item.manifest, "source": {"file": item.file, "line": item.line, "column": item.column}}


def _named(name: Name) -> Json:
    return {"kind": name.kind, "name": name.name} | ({"namespace": name.namespace} if name.namespace else {})


def _owned(kept: Json) -> Owned:
    metadata = part(part(kept, "manifest"), "metadata")
    return Owned(
        Name(str(kept["kind"]), str(metadata.get("namespace") or ""), str(kept["name"])), str(part(kept, "source").get("file") or "")
    )
