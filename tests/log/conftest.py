"""A migrated database a test, and what is needed to fill it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from db.scratch import open_scratch
from hansa.artifacts.content import open_artifacts
from hansa.db.pool import open_database
from hansa.settings import ArtifactSettings
from log.library import Library
from stack import Stack


@pytest.fixture
async def library(stack: Stack, tmp_path: Path) -> AsyncIterator[Library]:
    """Two tenants with an agent each, and an artifact store in a folder."""
    async with (
        open_scratch(stack, tmp_path) as scratch,
        open_database(scratch.settings.database) as database,
        open_artifacts(ArtifactSettings(), tmp_path) as artifacts,
    ):
        found = Library(scratch, database, artifacts, tmp_path / "artifacts")
        await found.furnish()
        yield found
