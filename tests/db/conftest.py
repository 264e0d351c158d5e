"""A migrated database a test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from db.scratch import Scratch, open_scratch
from stack import Stack


@pytest.fixture
async def scratch(stack: Stack, tmp_path: Path) -> AsyncIterator[Scratch]:
    async with open_scratch(stack, tmp_path) as found:
        yield found
