"""A post office a test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from db.scratch import open_scratch
from messages.post import Office, open_office
from stack import Stack


@pytest.fixture
async def office(stack: Stack, tmp_path: Path) -> AsyncIterator[Office]:
    """An office on the session's servers, for tests that leave them whole."""
    async with open_scratch(stack, tmp_path) as scratch, open_office(scratch) as opened:
        yield opened
