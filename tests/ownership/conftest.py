"""Names that nobody has used, and a reconciler: the credential of what keeps objects as they are written."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from api.keys import issue
from hansa import ids
from stack import Process, Stack, plain_client


@pytest.fixture
def name() -> str:
    """A name that nobody has used."""
    return f"o-{ids.new_id().hex[-10:]}"


@pytest.fixture(scope="session")
def reconciler_key(stack: Stack) -> dict[str, str]:
    """The header of a key with the role reconciler, made once."""
    return asyncio.run(issue(stack, "default", name="test-sync", roles=["reconciler"]))


@pytest.fixture
async def reconciler(api: httpx2.AsyncClient, control_plane: Process, reconciler_key: dict[str, str]) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with the role reconciler; the scripted model is there."""
    async with plain_client(control_plane.url, headers=reconciler_key) as client:
        yield client
