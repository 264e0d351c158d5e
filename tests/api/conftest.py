"""Keys of several roles and tenants on the session's platform, and an agent that echoes."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from api.keys import Keys, make_keys
from samples import SCRIPTED, agent
from stack import Process, Stack, plain_client


@pytest.fixture(scope="session")
def keys(stack: Stack) -> Keys:
    """API keys, made once."""
    return asyncio.run(make_keys(stack))


@pytest.fixture
async def echo(api: httpx2.AsyncClient) -> str:
    """The name of an agent that answers what it is told."""
    applied = await api.post("/v1/objects:apply", json={"objects": [{"manifest": agent("echo")}]})
    assert applied.json()["failed"] == 0, applied.text
    return "echo"


@pytest.fixture
async def other(api: httpx2.AsyncClient, control_plane: Process, keys: Keys) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the other tenant, which has the same agent."""
    async with plain_client(control_plane.url, headers=keys.other_tenant) as client:
        objects = [{"manifest": SCRIPTED}, {"manifest": agent("echo")}]
        applied = await client.post("/v1/objects:apply", json={"objects": objects})
        assert applied.json()["failed"] == 0, applied.text
        yield client
