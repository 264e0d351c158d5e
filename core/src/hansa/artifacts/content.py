"""The artifact store: bytes by the SHA-256 of their content, each tenant's apart.

Must not know what the bytes are, or who refers to them. The tenant is part of every key: whoever has a digest of another tenant's
value finds nothing.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit
from uuid import UUID

import structlog

from hansa.artifacts.bucket import Bucket
from hansa.artifacts.folder import Folder
from hansa.errors import Damaged, Misconfigured
from hansa.settings import ArtifactSettings

log = structlog.stdlib.get_logger("hansa.artifacts")
BATCH = 500


class Place(Protocol):
    """Where objects lie. Raises `Unavailable` when it can't be reached, read or written."""

    name: str

    async def put(self, key: str, body: bytes) -> None:
        """Write whole or not at all, durable when this returns; what is there is replaced."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The object; None: there is none."""
        ...

    async def delete(self, key: str) -> None:
        """Remove the object if it is there."""
        ...

    async def clear(self, prefix: str) -> None:
        """Remove what may be left of `prefix` itself once there is no object under it."""
        ...

    async def keys(self, prefix: str, limit: int | None = None) -> list[str]:
        """The keys below a prefix that ends with a slash, in any order; with `limit` no more than so many of them."""
        ...


class Artifacts:
    """Objects by content. Use `open_artifacts`."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def put(self, tenant_id: UUID, digest: bytes, body: bytes) -> None:
        """Keep `body` under its SHA-256; durable when this returns. Safe to repeat, which also mends a damaged object."""
        if hashlib.sha256(body).digest() != digest:
            raise ValueError(f"{digest.hex()} is not the SHA-256 of the {len(body)} bytes given for it")
        await self._place.put(_key(tenant_id, digest), body)

    async def get(self, tenant_id: UUID, digest: bytes) -> bytes:
        """The bytes with this SHA-256. Raises `Damaged`, naming the object, when it is missing or its content is another."""
        key = _key(tenant_id, digest)
        body = await self._place.get(key)
        if body is None:
            raise self._damaged(key, digest, "is missing")
        if hashlib.sha256(body).digest() != digest:
            raise self._damaged(key, digest, f"has been changed: its {len(body)} bytes have another SHA-256")
        return body

    def _damaged(self, key: str, digest: bytes, what: str) -> Damaged:
        """The tenant is told which value it is, the operator's log where it lies."""
        log.error("artifact.damaged", place=self._place.name, key=key, what=what)
        return Damaged(f"the artifact sha256:{digest.hex()} {what}", hint="Restore it from a backup of the artifact store.")

    async def delete(self, tenant_id: UUID, digest: bytes) -> None:
        """Remove an object; it need not be there."""
        await self._place.delete(_key(tenant_id, digest))

    async def purge(self, tenant_id: UUID) -> int:
        """Remove all objects of a tenant; how many. Safe to repeat, and to be cut off."""
        removed = 0
        while keys := await self._place.keys(f"{tenant_id}/", BATCH):
            await asyncio.gather(*map(self._place.delete, keys))
            removed += len(keys)
        await self._place.clear(f"{tenant_id}/")
        return removed

    async def residue(self, tenant_id: UUID) -> int:
        """How many objects of a tenant there are, counted up to a bound."""
        return len(await self._place.keys(f"{tenant_id}/", BATCH))

    async def put_part(self, export: str, number: int, body: bytes) -> None:
        """Keep one part of an export, `deletion/attempt`; safe to repeat. It belongs to no tenant any more."""
        await self._place.put(_part(export, number), body)

    async def keep_attempt(self, deletion: UUID, attempt: UUID) -> None:
        """Remove what other attempts at an export have left behind."""
        prefix, kept = f"exports/{deletion}/", f"exports/{deletion}/{attempt}/"
        seen = 0
        while len(keys := await self._place.keys(prefix, seen + BATCH)) > seen:
            others = [key for key in keys if not key.startswith(kept)]
            await asyncio.gather(*map(self._place.delete, others))
            seen = len(keys) - len(others)

    async def get_part(self, export: str, number: int) -> bytes:
        """One part of an export. Raises `Damaged` when it is missing."""
        body = await self._place.get(_part(export, number))
        if body is None:
            raise Damaged(f"part {number} of export {export} is missing", hint="Restore it from a backup of the artifact store.")
        return body


def _part(export: str, number: int) -> str:
    return f"exports/{export}/{number:08}"


def _key(tenant_id: UUID, digest: bytes) -> str:
    return f"{tenant_id}/{digest.hex()[:2]}/{digest.hex()}"


@asynccontextmanager
async def open_artifacts(settings: ArtifactSettings, data_dir: Path) -> AsyncIterator[Artifacts]:
    """The store that the settings name; by default the folder `artifacts` of the data folder."""
    yield Artifacts(place_of(settings, data_dir / "artifacts"))


def place_of(settings: ArtifactSettings, default: Path, *, variable: str = "HANSA_ARTIFACTS_URL") -> Place:
    """The folder or bucket that `settings.url` names, or a folder. Raises `Misconfigured`, which names the variable it came from."""
    parts = urlsplit(settings.url)
    match parts.scheme:
        case "":
            return Folder(Path(settings.url) if settings.url else default, variable=variable)
        case "file" if not parts.netloc:
            return Folder(Path(unquote(parts.path)), variable=variable)
        case "s3" if parts.netloc:
            return Bucket(parts.netloc, parts.path.strip("/"), settings)
        case _:
            raise Misconfigured(
                f"{variable} is {settings.url!r}",
                hint="Use a folder's path, file:///folder or s3://bucket/prefix; empty: the data folder.",
            )
