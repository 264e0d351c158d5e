"""Fixtures that several tests of the server use."""

import httpx2
import pytest

from samples import agent


@pytest.fixture
async def echo(api: httpx2.AsyncClient) -> str:
    """The name of an agent that answers what it is told."""
    applied = await api.post("/v1/objects:apply", json={"objects": [{"manifest": agent("echo")}]})
    assert applied.json()["failed"] == 0, applied.text
    return "echo"
