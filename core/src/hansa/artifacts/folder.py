"""Objects as files of one folder. Every write is a new file, synced to disk and then renamed: a reader sees all of it or none.

Warning: processes on several machines need a folder that they share; else use a bucket.
"""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from hansa.errors import Misconfigured, Unavailable

T = TypeVar("T")
INCOMING = ".incoming"
LEFT_BEHIND_SECONDS = 3600.0
"""A file that is this old and still incoming was left by a process that was killed."""


class Folder:
    """A folder, made when it is not there. Raises `Misconfigured` when that can't be done."""

    def __init__(self, root: Path, *, variable: str = "HANSA_ARTIFACTS_URL") -> None:
        self.name = f"the folder {root}"
        self._root = root
        try:
            (root / INCOMING).mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in (root / INCOMING).iterdir():
                if left.stat().st_mtime < time.time() - LEFT_BEHIND_SECONDS:
                    left.unlink(missing_ok=True)
        except OSError as error:
            raise Misconfigured(f"{self.name} of the artifacts can't be used: {error.strerror}", hint=f"Set {variable}.") from error

    async def put(self, key: str, body: bytes) -> None:
        await self._done("written", lambda: self._write(self._root / key, body))

    async def get(self, key: str) -> bytes | None:
        return await self._done("read", lambda: _read(self._root / key))

    async def delete(self, key: str) -> None:
        await self._done("deleted", lambda: (self._root / key).unlink(missing_ok=True))

    async def clear(self, prefix: str) -> None:
        await self._done("deleted", lambda: shutil.rmtree(self._root / prefix, ignore_errors=True))

    async def keys(self, prefix: str, limit: int | None = None) -> list[str]:
        return await self._done("listed", lambda: list(islice(_list(self._root, prefix), limit)))

    async def _done(self, what: str, operation: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(operation)
        except OSError as error:
            raise Unavailable(
                f"{self.name} of the artifacts can't be {what}: {error.strerror}",
                hint="Look at its disk and its permissions.",
                retry_after=5.0,
            ) from error

    def _write(self, path: Path, body: bytes) -> None:
        for folder in [self._root / each for each in reversed(path.relative_to(self._root).parents[:-1])]:
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)
                _sync(folder.parent)
        descriptor, temporary = tempfile.mkstemp(dir=self._root / INCOMING)
        try:
            with os.fdopen(descriptor, "wb") as sink:
                sink.write(body)
                sink.flush()
                os.fsync(sink.fileno())
            os.replace(temporary, path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync(path.parent)


def _list(root: Path, prefix: str) -> Iterator[str]:
    return (str(path.relative_to(root)) for path in (root / prefix).rglob("*") if path.is_file())


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
