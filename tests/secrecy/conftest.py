"""Two tenants, and what a process has of secrets, with keys in a file."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hansa.auth.model import Principal
from secrecy.safe import Safe, key_file, new_tenant, open_safe
from stack import Stack

KEK = "a key-encryption key of the tests, long enough"


@pytest.fixture
async def mine(stack: Stack) -> Principal:
    """Someone in a tenant of their own."""
    return await new_tenant(stack.settings)


@pytest.fixture
async def theirs(stack: Stack) -> Principal:
    """Someone in another tenant."""
    return await new_tenant(stack.settings)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A file with one key-encryption key."""
    return key_file(tmp_path, KEK)


@pytest.fixture
async def safe(stack: Stack, keys: Path) -> AsyncIterator[Safe]:
    """A process that has the key."""
    async with open_safe(stack.settings, key_file=str(keys)) as found:
        yield found
