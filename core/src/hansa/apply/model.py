"""What the platform itself knows of an object, beside its manifest: the tools that a ToolServer was found to offer.

Knows no protocol: how a server is asked is handed to the slice as a `Discover`.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import msgspec

from hansa_crds import ToolServer


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
