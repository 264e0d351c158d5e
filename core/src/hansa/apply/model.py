"""Objects as they are asked for and as they are kept, what becomes of them, and what the platform itself knows of one beside its manifest:
the tools that a ToolServer was found to offer.

Knows no protocol: how a server is asked is handed to the slice as a `Discover`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from hansa.errors import FieldError
from hansa_crds import ToolServer

ORDER = ("Region", "Tenant", "ModelProvider", "ToolServer", "Agent")
"""What others refer to comes first."""
CLUSTER = ("Region", "Tenant")
"""Kinds that stand in no namespace, and belong to the platform's own people."""


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an object was written: file, line and column (from 1)."""

    file: str = ""
    line: int = 0
    column: int = 0


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One object to apply, as decoded from YAML or JSON."""

    manifest: Any
    source: Source | None = None


class Owner(msgspec.Struct, frozen=True):
    """Who owns objects: a manager (rest, git or kubernetes) and which one of it. People at the API have no origin, and are one owner."""

    manager: str = "rest"
    origin: str = ""


Name = Annotated[str, Meta(max_length=253, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object by its name. `namespace`: the one that its manifest says; left out: whatever it says."""

    kind: Name
    name: Name
    namespace: Name | None = None


class Unwanted(msgspec.Struct, frozen=True):
    """Objects that an owner no longer has. `leads` is of `Objects.leads`; `allow_mass`: the explicit yes to deleting many; `commit`: the
    one that has them no more."""

    owner: Owner
    names: Sequence[Named] = ()
    leads: Mapping[str, str] = {}
    allow_mass: bool = False
    commit: str = ""


class Kept(msgspec.Struct, frozen=True):
    """An object as it stands in its row; `manifest` and `source` are JSON texts."""

    name: str
    generation: int
    digest: bytes
    manifest: str
    manager: str
    origin: str
    commit: str
    source: str | None
    applied_by: str

    @property
    def owner(self) -> Owner:
        """Who owns it."""
        return Owner(self.manager, self.origin)

    @property
    def namespace(self) -> str | None:
        """The namespace that its manifest says."""
        return msgspec.json.decode(self.manifest, type=_Head).metadata.namespace


class _Meta(msgspec.Struct):
    namespace: str | None = None


class _Head(msgspec.Struct):
    metadata: _Meta


class Leads(msgspec.Struct, frozen=True):
    """Where namespaces lead: `tenants`, as it is when a request is done, and `claimed`, as it was before."""

    tenants: Mapping[str, str] = {}
    claimed: Mapping[str, str] = {}


class Asked(msgspec.Struct, frozen=True):
    """What is asked of `Objects.apply`. `leads`, and what ToolServers said (`discovered`, by tenant and name), are of `Objects.prepare`.
    `force`: take over what others own. `explain`: also tell what would change."""

    items: list[Item]
    owner: Owner = Owner()
    commit: str = ""
    force: bool = False
    leads: Leads = Leads()
    discovered: Mapping[tuple[str, str], "ToolServerStatus"] = {}
    explain: bool = False


class Change(msgspec.Struct, frozen=True):
    """A field that differs: what it was and what it is then; null: it is not there."""

    path: str
    before: Any
    after: Any


class Applied(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one object. `action`: created, configured, unchanged, deleted, absent or failed; `note`: what is not right with it
    nevertheless; `tenant`: whose it is, if not the caller's; `changes`: what a plan would change;
    `status`: of an agent.
    """

    kind: str
    name: str
    action: str
    generation: int | None = None
    revision: int | None = None
    note: str = ""
    tenant: str = ""
    errors: tuple[FieldError, ...] = ()
    changes: tuple[Change, ...] = ()
    status: dict[str, Any] | None = None


class ServerTool(msgspec.Struct, frozen=True):
    """A tool as its server describes it; `input_schema` is a valid JSON Schema of an object."""

    name: str
    description: str
    input_schema: dict[str, Any]


class LeftOut(msgspec.Struct, frozen=True):
    """A tool that can't be used, and why."""

    name: str
    reason: str


class ToolServerStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of asking a server for its tools.

    `reason` says why it was not reachable; `protocol` is the MCP revision it speaks; `tools` are those that `spec.allow` admits.
    """

    reachable: bool
    reason: str = ""
    protocol: str = ""
    tools: tuple[ServerTool, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    checked_at: str = ""


class KnownServer(msgspec.Struct, frozen=True):
    """A ToolServer as it is stored. `status` None: it was never asked."""

    manifest: ToolServer
    status: ToolServerStatus | None

    @property
    def name(self) -> str:
        return self.manifest.metadata.name

    @property
    def tools(self) -> dict[str, ServerTool]:
        """The tools it offers, by name; those of its last good answer while it can't be reached."""
        return {tool.name: tool for tool in self.status.tools} if self.status else {}

    @property
    def trouble(self) -> str:
        """Why nobody should start to rely on it now; empty: it is fine."""
        if self.status is None:
            return "it was never asked for its tools; apply it again"
        return "" if self.status.reachable else self.status.reason


Discover = Callable[[UUID, ToolServer], Awaitable[ToolServerStatus]]
"""Asks a tenant's server for its tools. Never raises for what the server does: that is a status."""
