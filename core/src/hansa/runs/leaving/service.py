"""Tenants out of Hansa and into it again, as bundles."""

from collections.abc import AsyncIterable, AsyncIterator
from uuid import UUID

from hansa.apply.service import Objects
from hansa.auth.model import Principal
from hansa.errors import HansaError
from hansa.runs.equipment import Equipment
from hansa.runs.leaving import exporting
from hansa.runs.leaving.bundle import broken
from hansa.runs.leaving.importing import Imported, Importer, spool, spooled
from hansa.runs.log.service import Archives
from hansa.tenants import store as tenant_store
from hansa.tenants.service import missing


async def _told(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for piece in pieces:
            yield piece
    except HansaError as error:
        yield broken({"code": error.code, "detail": error.detail, "hint": error.hint})


class Bundles:
    """Exports and imports of whole tenants."""

    def __init__(self, equipment: Equipment, archives: Archives, objects: Objects) -> None:
        self._equipment = equipment
        self._importer = Importer(equipment.database, archives, objects)

    async def export(self, name: str) -> AsyncIterator[bytes]:
        """The bundle of a tenant, piece by piece. Raises `NotFound` at once; what fails later is told in a last member."""
        found = await tenant_store.find_tenant(self._equipment.database, name)
        if found is None:
            raise missing(name)
        self._equipment.database.expect(found["tenant_id"], found["database"])
        return _told(exporting.members(self._equipment.database, self._equipment.values, found["tenant_id"], name))

    async def kept(self, deletion_id: UUID, export: UUID, parts: int) -> AsyncIterator[bytes]:
        """The bundle that a deletion has written, piece by piece."""
        for number in range(parts):
            yield await self._equipment.artifacts.get_part(f"{deletion_id}/{export}", number)

    async def take(self, principal: Principal, chunks: AsyncIterable[bytes], *, most: int, name: str | None) -> Imported:
        """Make a tenant of a bundle. Raises `Invalid` or `TooLarge`."""
        with spool(self._equipment.workspaces.parent / "imports") as file:
            await spooled(file, chunks, most)
            return await self._importer.take(principal, file, name=name)
