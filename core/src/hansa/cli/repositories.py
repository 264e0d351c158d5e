"""Where manifests come from, as it is typed: a folder, or a Git repository with a ref and a folder in it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hansa.apply.repository.git import open_git
from hansa.apply.repository.location import locate
from hansa.apply.repository.model import Source, Verify
from hansa.apply.repository.plain import FolderSource
from hansa.apply.repository.settings import load
from hansa.cli.connection import Connection, data_dir
from hansa.cli.usage import UsageError

FOLDER_HELP = "Folder with manifests, without Git; sub-folders too."


@Parameter(name="*", group="Repository")
@dataclass(frozen=True)
class Repository:
    """Options that name a Git repository."""

    git: Annotated[
        str, Parameter(help="Repository: an https or ssh URL, or a folder. Credentials: HANSA_GIT_PASSWORD_FILE and others.")
    ] = ""
    ref: Annotated[str, Parameter(help="Branch, tag or commit; left out: what HEAD names.")] = ""
    path: Annotated[str, Parameter(help="Folder in the repository; left out: all of it.")] = ""
    verify: Annotated[
        Verify, Parameter(help="Which commits must be signed: none, the newest (head), or all since the one applied last.")
    ] = "none"
    origin: Annotated[str, Parameter(help="Name of the source, if not URL//path: for a copy of a repository, as in CI.")] = ""


@asynccontextmanager
async def open_source(folder: Path | None, repository: Repository | None, connection: Connection | None) -> AsyncIterator[Source]:
    """Open what was typed. Raises `UsageError`, `Invalid`."""
    asked = repository or Repository()
    if (folder is None) == (not asked.git):
        raise UsageError("one source is wanted: a folder, or --git with a repository")
    if folder is not None:
        if asked.ref or asked.path or asked.verify != "none":
            raise UsageError("--ref, --path and --verify are for --git; a folder without Git has none of them")
        source = FolderSource(locate(folder.resolve().as_uri()))
        source.origin = asked.origin or source.origin
        yield source
        return
    copies = data_dir(connection or Connection()) / "repositories"
    async with open_git(
        locate(asked.git), load(os.environ), ref=asked.ref, path=asked.path, verify=asked.verify, data=copies.resolve()
    ) as source:
        source.origin = asked.origin or source.origin
        yield source
