"""A plain context for tools: a workspace of its own, a client, a clock that stands still."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from hansa_sdk import Tool, ToolFailed


class Context(msgspec.Struct, kw_only=True):
    """Implements `hansa_sdk.ToolContext`, and runs tools as the platform does: arguments are decoded strictly first."""

    workspace: Path
    http: httpx2.AsyncClient
    settings: Mapping[str, str] = {}
    idempotency_key: str = "run-1:step-1"
    cage: Any = None

    async def secret(self, name: str) -> str:
        raise ToolFailed(f"no secret {name!r} here")

    def now(self) -> datetime:
        return datetime(2026, 3, 29, 0, 30, tzinfo=UTC)

    async def run(self, tool: Tool, **arguments: object) -> Any:
        return await tool.run(self, msgspec.convert(arguments, tool.arguments, strict=True))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """Its client goes nowhere: tests of requests bring their own."""
    (tmp_path / "workspace").mkdir()
    nowhere = httpx2.AsyncClient(transport=httpx2.MockTransport(_refuse), trust_env=False)
    return Context(workspace=tmp_path / "workspace", http=nowhere)


def _refuse(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError(f"this test sends nothing: {request.url}")
