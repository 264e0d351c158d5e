"""A folder without Git as a source of manifests. Links are followed where they lead to a file of the same folder, and nowhere else."""

import asyncio
import hashlib
import os
import stat
from pathlib import Path

from hansa.apply.manifests import MAX_BYTES, SUFFIXES
from hansa.apply.repository.failures import Reason, RepositoryAway, RepositoryRefused
from hansa.apply.repository.location import Location, origin_of
from hansa.apply.repository.model import MAX_ENTRIES, File, Tree, Unreadable
from hansa.apply.repository.trees import SHUT_LINK, UNSHOWN, bounded, legible


class FolderSource:
    """Implements `hansa.apply.repository.model.Source`; its commit is a digest of all that the folder holds."""

    ref = ""

    def __init__(self, location: Location) -> None:
        self.origin = origin_of(location, "")
        self._root = Path(location.path)
        self._seen: dict[str, tuple[tuple[int, ...], File]] = {}
        self._tree = Tree("", {})

    async def look(self) -> str:
        self._tree = await asyncio.to_thread(self._look)
        return self._tree.commit

    async def tree(self, commit: str, *, since: str = "", known: Tree | None = None) -> Tree:
        if commit != self._tree.commit:
            raise RepositoryAway(Reason.DAMAGED, f"{self._root} has changed since it was looked at")
        return self._tree

    async def files_at(self, commit: str) -> dict[str, File] | None:
        return self._tree.files if commit == self._tree.commit else None

    async def read(self, path: str, file: File) -> bytes:
        content = await asyncio.to_thread(self._content, self._root / path, file)
        if _id(content) != file.id:
            # It is being written; the next look sees it again.
            raise RepositoryAway(Reason.DAMAGED, f"{self._root / path} has changed while it was read")
        return content

    def _look(self) -> Tree:
        if not self._root.is_dir():
            raise RepositoryRefused(Reason.GONE, f"there is no folder {self._root}")
        real = self._root.resolve()
        found: dict[str, File] = {}
        seen: dict[str, tuple[tuple[int, ...], File]] = {}
        entries = 0
        for folder, folders, names in os.walk(self._root, onerror=_raised):
            folders[:] = [name for name in folders if not name.startswith(".")]
            entries += len(folders) + len(names)
            if entries > MAX_ENTRIES:
                raise RepositoryRefused(Reason.TOO_LARGE, f"there are more than {MAX_ENTRIES} files and folders in {self._root}")
            plain = [name for name in names if not name.startswith(".")]
            for path in (Path(folder, name) for name in (*folders, *(name for name in plain if Path(name).suffix not in SUFFIXES))):
                if path.is_symlink():  # also one that leads nowhere, as to what is not mounted
                    found[legible(os.fsencode(path.relative_to(self._root)))] = File("", SHUT_LINK, shut=True)
            for path in (Path(folder, name) for name in plain if Path(name).suffix in SUFFIXES):
                named = os.fsencode(path.relative_to(self._root))
                shown = legible(named)
                seen[shown] = self._file(path, shown, real) if shown.encode() == named else ((), File("", UNSHOWN))
                found[shown] = seen[shown][1]
        self._seen = seen
        digest = hashlib.sha256("".join(f"{path}\0{file.id}\0{file.flaw}\0" for path, file in sorted(found.items())).encode()).hexdigest()
        return Tree(f"folder-{digest[:40]}", bounded(found))

    def _file(self, path: Path, shown: str, real: Path) -> tuple[tuple[int, ...], File]:
        try:
            target = path.resolve(strict=True)
            looks = target.stat()
        except OSError as error:
            return (), File("", f"can't be read: {error.strerror or error}")
        if not target.is_relative_to(real):
            return (), File("", "is a link that leads out of the folder, which is not followed")
        if not stat.S_ISREG(looks.st_mode):
            return (), File("", "is a pipe or a device, not a file")
        signature = (looks.st_mtime_ns, looks.st_ctime_ns, looks.st_size, looks.st_ino)
        known = self._seen.get(shown)
        if known is not None and known[0] == signature:
            return known
        if looks.st_size > MAX_BYTES:
            return signature, File("", f"larger than {MAX_BYTES} bytes")
        try:
            return signature, File(_id(target.read_bytes()))
        except OSError as error:
            return (), File("", f"can't be read: {error.strerror or error}")

    def _content(self, path: Path, file: File) -> bytes:
        if file.flaw:
            raise Unreadable(file.flaw)
        try:
            with path.open("rb") as opened:
                return opened.read(MAX_BYTES + 1)
        except OSError as error:
            raise Unreadable(f"can't be read: {error.strerror or error}") from error


def _id(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]


def _raised(error: OSError) -> None:
    """A folder that can't be looked into might hold anything: nothing is concluded from it."""
    raise RepositoryAway(Reason.DAMAGED, f"{error.filename} can't be read: {error.strerror}")
