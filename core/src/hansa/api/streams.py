"""How many event streams one caller, and one tenant, read at once from this control plane: each holds a connection, a subscription and
a look into the log each second.
"""

import weakref
from uuid import UUID

from hansa.auth.model import Principal
from hansa.errors import LimitExceeded
from hansa.settings import ServerSettings

Reader = tuple[UUID, str]


class Place:
    """A stream's place among those of its reader. It is given back when the stream ends, or when it never began."""


class Streams:
    """Counts."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._open: dict[Reader, int] = {}

    def enter(self, principal: Principal) -> Place:
        """Take a place, to be kept for as long as the stream. Raises `LimitExceeded`."""
        settings = self._settings
        one, all_of_tenant = (principal.tenant_id, principal.name), (principal.tenant_id, "")
        for reader, most, whose in (
            (one, settings.streams_per_principal, "this key"),
            (all_of_tenant, settings.streams_per_tenant, f"tenant {principal.tenant!r}"),
        ):
            if self._open.get(reader, 0) >= most:
                raise LimitExceeded(
                    f"{whose} reads {most} event streams from this control plane, the most that it may at once",
                    hint="End some, or read several sessions one after the other with GET .../events.",
                    retry_after=5.0,
                )
        for reader in (one, all_of_tenant):
            self._open[reader] = self._open.get(reader, 0) + 1
        place = Place()
        weakref.finalize(place, self._leave, one, all_of_tenant)
        return place

    def _leave(self, *readers: Reader) -> None:
        for reader in readers:
            self._open[reader] -= 1
            if not self._open[reader]:
                del self._open[reader]
