"""A database of one's own for tests that tamper with it, and keys of all roles."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from api.keys import Keys, make_keys
from db.scratch import Scratch, migrated_template, open_scratch
from hansa.settings import Settings
from stack import Stack


@pytest.fixture(scope="session")
def keys(stack: Stack) -> Keys:
    """API keys, made once."""
    return asyncio.run(make_keys(stack))


@pytest.fixture(scope="session")
def template(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with migrated_template(stack, tmp_path_factory.mktemp("template")) as found:
        yield found


@pytest.fixture
async def scratch(stack: Stack, tmp_path: Path, template: Settings) -> AsyncIterator[Scratch]:
    async with open_scratch(stack, tmp_path, template=template) as found:
        yield found
