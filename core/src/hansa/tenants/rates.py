"""How many requests a second a tenant may make, over all control planes together: the database counts, for requests that come at the
same time in one round trip. A tenant without a bound costs nothing.
"""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from hansa.auth.model import Principal
from hansa.db.gathering import Gatherer
from hansa.db.pool import Database
from hansa.errors import LimitExceeded
from hansa.tenants import store

BATCH = 256


class Verdict(msgspec.Struct, frozen=True):
    """Whether one request is admitted; if not, `pause` is how many seconds later one could be."""

    admitted: bool
    bound: int | None
    pause: float


class Rates:
    """Counts while its `gatherer` is carried."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.gatherer = Gatherer(self._take, database=database, size=BATCH)

    async def admit(self, principal: Principal) -> None:
        """Count one request of the caller's tenant. Raises `LimitExceeded`."""
        if not principal.rated:
            return
        verdict = await self.gatherer.done(principal.tenant_id, principal.tenant_id)
        if not verdict.admitted:
            raise LimitExceeded(
                f"tenant {principal.tenant!r} may make {verdict.bound} requests a second (quotas.requestsPerSecond), and makes more",
                hint="Wait as long as Retry-After says.",
                retry_after=verdict.pause,
            )

    async def _take(self, tenants: Sequence[UUID]) -> list[Verdict]:
        taken = await store.take_requests(self._database, tenants[0], len(tenants))
        return [Verdict(number < taken["admitted"], taken["bound"], taken["pause"]) for number in range(len(tenants))]
