"""What a source of manifests and a control plane say to each other, as far as the engine needs it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from hansa.apply.manifests import Manifest
from hansa.apply.model import Applied
from hansa.errors import FieldError

SYNCED, APPLYING, FAILING, DELETION_REFUSED, NO_MANIFESTS, CONTROL_PLANE_AWAY, REFUSED = (
    "Synced",
    "Applying",
    "Failing",
    "DeletionRefused",
    "NoManifests",
    "ControlPlaneAway",
    "Refused",
)
"""States of a source beside the reasons of `hansa.apply.repository.failures`: all is as it says; another commit is being sent (if
that is never told to be done, nothing is known of what stands); some of it could not be applied; deleting was refused as too much; it
says nothing at all; the control plane did not answer, or did not let us in."""


CHANGING = ("created", "configured", "deleted")
"""Actions after which the control plane has something else than before."""


class Name(msgspec.Struct, frozen=True, order=True):
    """By which an object is known in files: kind, namespace as it is written there (perhaps empty), and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.lower()}/{self.name}{f' in {self.namespace}' if self.namespace else ''}"


class Item(msgspec.Struct, frozen=True):
    """One object to apply, and where it stands."""

    name: Name
    manifest: dict[str, Any]
    file: str
    line: int
    column: int
    written: Manifest | None = None
    """Knows where each part of it stands."""


class Owned(msgspec.Struct, frozen=True):
    """An object that the control plane keeps for our origin; `file` is where it stood when it was applied."""

    name: Name
    file: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a source last saw, as the control plane keeps it. `commit` is the one whose objects were all applied or refused."""

    origin: str
    ref: str = ""
    commit: str = ""
    state: str = ""
    message: str = ""
    errors: tuple[FieldError, ...] = ()
    seen_at: datetime | None = None
    applied_at: datetime | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a pass did. `outcomes`: of objects that were sent; `waiting`: objects that are not deleted, and why; `overtaken`: it has changed
    something, and there is a newer commit by now."""

    record: Record
    outcomes: tuple[Applied, ...] = ()
    waiting: tuple[str, ...] = ()
    files: int = 0
    objects: int = 0
    read: int = 0
    """Files that were read."""
    overtaken: bool = False

    @property
    def failed(self) -> bool:
        """Whether a person should look."""
        return self.record.state != SYNCED


class Api(Protocol):
    """The control plane, for one source. All may raise `HansaError`."""

    async def record(self) -> Record | None:
        """What is kept of this source; None: nothing yet."""
        ...

    async def keep(self, record: Record) -> None:
        """Keep what was seen."""
        ...

    async def owned(self) -> list[Owned]:
        """Every object that this source owns, in all tenants."""
        ...

    async def apply(self, commit: str, items: Sequence[Item]) -> list[Applied]:
        """Apply objects; the answers in their order."""
        ...

    async def delete(self, commit: str, names: Sequence[Name], *, allow_mass_delete: bool) -> list[Applied]:
        """Delete objects of this source; the answers in their order."""
        ...


class Planner(Protocol):
    """The control plane, asked what would be."""

    async def owned(self) -> list[Owned]: ...

    async def plan(self, commit: str, items: Sequence[Item], deleted: Sequence[Name]) -> list[Applied]:
        """What would become of objects, then of what would be deleted; nothing is written."""
        ...
