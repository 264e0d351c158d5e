"""Sessions out of Hansa and into it again, as archives."""

from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from uuid import UUID

import msgspec

from hansa.audit.model import Action
from hansa.audit.service import record
from hansa.auth.idempotency import Answer, IdempotencyKey, once
from hansa.auth.model import Principal
from hansa.db.pool import Connection, Database
from hansa.errors import HansaError
from hansa.runs import store as runs_store
from hansa.runs.admitting.service import admit
from hansa.runs.log import exporting, importing
from hansa.runs.log.keeping import Values


class Archives:
    """Exports and imports of this region; `folder` is where an import is kept while it is read."""

    def __init__(self, database: Database, values: Values, folder: Path) -> None:
        self._database = database
        self._values = values
        self._folder = folder

    async def export(self, principal: Principal, session_id: UUID) -> AsyncIterator[bytes]:
        """The archive of a session, to be read piece by piece. Raises `NotFound` at once; what fails later is told in the last line."""
        await admit(self._database, principal, "runs:read", what="session", id=session_id)
        found = await exporting.snapshot(self._database, principal, session_id)
        return self._told(exporting.lines(self._database, self._values, principal, found))

    async def _told(self, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            async for text in lines:
                yield text
        except HansaError as error:
            yield msgspec.json.encode({"error": {"code": error.code, "detail": error.detail, "hint": error.hint}}) + b"\n"

    async def take(self, principal: Principal, chunks: AsyncIterable[bytes], *, most: int, route: str, key: str | None) -> Answer:
        """Import an archive; the session as JSON text. Raises `Invalid` naming the line, `TooLarge` or `Conflict`."""
        with importing.spooled(self._folder) as spool:
            await spool.fill(chunks, most)
            await importing.keep_values(self._values, principal, spool)

            async def operation(connection: Connection) -> tuple[int, str]:
                session_id = await importing.write(connection, spool)
                session = await runs_store.find_session(connection, session_id)
                if session is None:
                    raise HansaError("the session is not there after its import")
                now = {"runs": len(spool.reader.runs), "archive": f"sha256:{spool.digest.hex()}"}
                await record(connection, principal.did(Action.SESSION_IMPORTED, f"Session/{session_id}", after=now))
                return 201, session

            return await once(self._database, principal, IdempotencyKey(route, key, spool.digest) if key is not None else None, operation)
