"""What a repository holds at a moment: files by path, each with an id that changes when its content does."""

from typing import Literal, Protocol

import msgspec

Verify = Literal["none", "head", "all"]
"""Whose commits are followed: anybody's; when the newest one is signed; when all are that came since the one applied last."""
MAX_FILES = 20_000
"""Manifests of one source."""
MAX_ENTRIES = 200_000
"""Entries of all folders that are looked into."""


class File(msgspec.Struct, frozen=True):
    """A file of a tree. `flaw`: why it must not be read, such as a link; empty: it may. `shut`: it is no manifest, but stands where
    a folder of them may have stood, as a link or a submodule does: nobody can say what is in it."""

    id: str
    flaw: str = ""
    shut: bool = False


class Tree(msgspec.Struct, frozen=True):
    """All manifest files below the source's path, and what is shut there, by their path from the top of the repository.

    `commit`: 40 hex digits, or `folder-` and a digest for a folder without Git. `note`: what is worth telling of how it came to be.
    """

    commit: str
    files: dict[str, File]
    note: str = ""


class Unreadable(Exception):
    """One file can't be read; the others can."""


class Source(Protocol):
    """Where manifests come from. All may raise `RepositoryAway` and `RepositoryRefused`."""

    @property
    def origin(self) -> str:
        """Its name, by which objects know it: `URL//path`."""
        ...

    @property
    def ref(self) -> str:
        """The branch or tag that is followed, as it was asked for."""
        ...

    async def look(self) -> str:
        """Which commit it has now. Cheap: nothing else is transferred."""
        ...

    async def tree(self, commit: str, *, since: str = "", known: Tree | None = None) -> Tree:
        """What it holds at a commit; with `known`, only what differs is read. `since`: the commit applied last, for signatures."""
        ...

    async def files_at(self, commit: str) -> dict[str, File] | None:
        """What it held at a commit that was applied before; None: that is not known here, and not worth a download."""
        ...

    async def read(self, path: str, file: File) -> bytes:
        """The content of a file. Raises `Unreadable`."""
        ...
