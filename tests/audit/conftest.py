"""A database of one's own for tests that tamper with it, and keys of all roles."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.keys import Keys, make_keys
from db.scratch import Scratch, open_scratch
from stack import Stack


@pytest.fixture(scope="session")
def keys(stack: Stack) -> Keys:
    """API keys, made once."""
    return asyncio.run(make_keys(stack))


@pytest.fixture
async def scratch(stack: Stack, tmp_path: Path) -> AsyncIterator[Scratch]:
    async with open_scratch(stack, tmp_path) as found:
        yield found
