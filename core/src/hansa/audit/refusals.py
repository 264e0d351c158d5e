"""What was refused, told to the audit trail of whom it concerns. Nothing was changed, so it is a transaction of its own.

The same refusal again within a minute is only counted, and told with the next one: whoever asks a thousand times a second fills no
table. Warning: a process that ends takes such a count with it, and what can't be written because the database is away is only logged.
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
SECONDS = 60.0
KNOWN = 10_000


class Refusals:
    """Those that one process tells of."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._told: dict[Hashable, tuple[float, int]] = {}

    async def tell(self, tenant_id: UUID, event: AuditEvent) -> None:
        """Write a refusal into a tenant's trail, unless the same was written a moment ago."""
        mark = (tenant_id, event.action, event.actor, event.target, event.reason)
        until, repeated = self._told.get(mark, (0.0, 0))
        if until > clock.monotonic():
            self._told[mark] = until, repeated + 1
            return
        if len(self._told) >= KNOWN:
            self._told.clear()
        self._told[mark] = clock.monotonic() + SECONDS, 0
        reason = f"{event.reason} (and {repeated} times since it was last told)" if repeated else event.reason
        try:
            async with self._database.tenant(tenant_id) as connection:
                await record(connection, msgspec.structs.replace(event, outcome=Outcome.REFUSED, reason=reason))
        except Unavailable as error:  # the refusal stands, and its answer is not held up
            del self._told[mark]
            log.warning("audit.refusal_not_kept", action=event.action, target=event.target, error=error.detail)
