"""How many requests a second a tenant may make, over all control planes together: the database counts, for requests that come at the
same time in one round trip, and ahead for those that are likely to come in the next moment. A tenant without a bound costs nothing.

Never over, by construction: what is counted ahead is used within a lease or not at all, and the database keeps that much of a second's
worth back. What is not used is at most as much as was used in the two leases before, and never comes out of the last half of a second's
worth; so near its bound a tenant is counted one by one.
"""

import math
from collections.abc import Callable, Sequence
from uuid import UUID

import msgspec

from hansa import clock
from hansa.auth.model import Principal
from hansa.db.gathering import Gatherer
from hansa.db.pool import Database
from hansa.errors import LimitExceeded
from hansa.tenants import store

BATCH = 256
KNOWN = 4096
"""How many tenants' leases are known at once."""


class Verdict(msgspec.Struct, frozen=True):
    """Whether one request is admitted; if not, `pause` is how many seconds later one could be."""

    admitted: bool
    bound: int | None
    pause: float


class Lease(msgspec.Struct):
    """Requests of one tenant that are counted already: `left` of them until it `ends`, `used` since it has `begun`. Until `refused` none
    could be counted, whoever asks. Times are the process's own, in seconds."""

    begun: float
    ends: float
    bound: int | None
    left: int
    used: int
    refused: float


class Rates:
    """Counts while its `gatherer` is carried. `now`: the clock that leases end by."""

    def __init__(self, database: Database, now: Callable[[], float] = clock.monotonic) -> None:
        self._database = database
        self._now = now
        self._leases: dict[UUID, Lease] = {}
        # Requests of a tenant are all alike, and each is one: without a mark of its own no two would be counted in one round trip.
        self.gatherer = Gatherer(self._take, size=BATCH, mark=lambda _: object())

    async def admit(self, principal: Principal) -> None:
        """Count one request of the caller's tenant. Raises `LimitExceeded`."""
        if not principal.rated:
            return
        verdict = self._known(principal.tenant_id) or await self.gatherer.done(principal.tenant_id, principal.tenant_id)
        if not verdict.admitted:
            raise LimitExceeded(
                f"tenant {principal.tenant!r} may make {verdict.bound} requests a second (quotas.requestsPerSecond), and makes more",
                hint="Wait as long as Retry-After says.",
                retry_after=verdict.pause,
            )

    def _known(self, tenant_id: UUID) -> Verdict | None:
        """What follows from what the database said last, if anything does."""
        lease = self._leases.get(tenant_id)
        now = self._now()
        if lease is None:
            return None
        if lease.left and now < lease.ends:
            lease.left -= 1
            lease.used += 1
            return Verdict(True, lease.bound, 0.0)
        return Verdict(False, lease.bound, lease.refused - now) if now < lease.refused else None

    async def _take(self, tenants: Sequence[UUID]) -> list[Verdict]:
        found = [verdict for tenant_id in tenants if (verdict := self._known(tenant_id)) is not None]
        return found if len(found) == len(tenants) else found + await self._count(tenants[0], len(tenants) - len(found))

    async def _count(self, tenant_id: UUID, wanted: int) -> list[Verdict]:
        asked = self._now()  # before the database counts: a lease ends too early rather than too late
        last = self._leases.get(tenant_id)
        ahead = last.used if last is not None and asked <= last.ends + (last.ends - last.begun) else 0
        taken = await store.take_requests(self._database, tenant_id, wanted, ahead=ahead)
        admitted, bound, pause = taken["admitted"], taken["bound"], taken["pause"]
        if len(self._leases) >= KNOWN:
            self._leases.clear()  # what was counted ahead is lost, nothing is counted twice
        self._leases[tenant_id] = Lease(
            begun=asked,
            ends=asked + taken["lease"],
            bound=bound,
            left=taken["ahead"],
            used=admitted,
            refused=asked + pause if admitted < wanted else -math.inf,
        )
        return [Verdict(number < admitted, bound, pause) for number in range(wanted)]
