"""What tests of repositories share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from doubles.git_server import GitServer, serving
from repository.repos import GitRepo


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    """An empty repository."""
    return GitRepo(tmp_path / "upstream")


@pytest.fixture
def server(repo: GitRepo) -> Iterator[GitServer]:
    """A Git server that has `repo`."""
    with serving(repo.folder.parent) as found:
        yield found
