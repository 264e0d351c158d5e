"""What happens at the door: who came in with a token, who was refused. Nothing is changed by it, so it is a transaction of its own.

The same again within a while is only counted, and told with the next one: whoever asks a thousand times a second fills no table, and
neither does who has no valid credential. Warning: a process that ends takes such a count with it, and what can't be written because the
database is away is only logged.
"""

from collections.abc import Hashable
from uuid import UUID

import msgspec
import structlog

from hansa import clock
from hansa.audit.model import AuditEvent, Outcome
from hansa.audit.service import record
from hansa.db.pool import Database
from hansa.errors import Unavailable

log = structlog.stdlib.get_logger("hansa.audit")
REFUSAL_SECONDS, LOGIN_SECONDS = 60.0, 3600.0
KNOWN = 10_000


class Door:
    """What one process tells of it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._told: dict[Hashable, tuple[float, int]] = {}

    async def refused(self, tenant_id: UUID, event: AuditEvent, *, kind: str) -> None:
        """Write a refusal into a tenant's trail, unless the same actor was refused in the same way a moment ago. `kind`: what is the same
        of two requests, such as their route; never what the caller can make up."""
        mark = (tenant_id, event.action, event.actor.name, kind, event.reason)
        await self._tell(tenant_id, msgspec.structs.replace(event, outcome=Outcome.REFUSED), mark, seconds=REFUSAL_SECONDS)

    async def entered(self, tenant_id: UUID, event: AuditEvent) -> None:
        """Write that someone came in, unless that was written an hour ago or less."""
        await self._tell(tenant_id, event, (tenant_id, event.action, event.actor.name), seconds=LOGIN_SECONDS)

    async def _tell(self, tenant_id: UUID, event: AuditEvent, mark: Hashable, *, seconds: float) -> None:
        until, repeated = self._told.get(mark, (0.0, 0))
        if until > clock.monotonic():
            self._told[mark] = until, repeated + 1
            return
        if len(self._told) >= KNOWN:
            self._told.clear()
        self._told[mark] = clock.monotonic() + seconds, 0
        if repeated and event.outcome is Outcome.REFUSED:
            event = msgspec.structs.replace(event, reason=f"{event.reason} (and {repeated} times since it was last told)")
        try:
            async with self._database.tenant(tenant_id) as connection:
                await record(connection, event)
        except Unavailable as error:  # what was decided at the door stands, and its answer is not held up
            self._told.pop(mark, None)
            log.warning("audit.not_kept", action=event.action, target=event.target, error=error.detail)
