"""A Git repository as a source of manifests: by https, by ssh, or a folder of this machine that is read where it is.

Everything that dulwich does happens in threads; one look or read at a time.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from dulwich.client import GitClient, LocalGitClient
from dulwich.objects import Commit, ObjectID
from dulwich.repo import Repo
from dulwich.walk import Walker

from hansa import clock
from hansa.apply.repository import trees
from hansa.apply.repository.failures import Reason, RepositoryAway, RepositoryRefused
from hansa.apply.repository.https import HttpsRemote, open_http
from hansa.apply.repository.location import Location, checked_path, checked_ref, is_commit, origin_of
from hansa.apply.repository.mirror import HISTORY, Mirror, ancestry, commit_of, told
from hansa.apply.repository.model import File, Tree, Verify
from hansa.apply.repository.settings import GitSettings
from hansa.apply.repository.signatures import read_believed, verify
from hansa.apply.repository.ssh import SshRemote

MAX_COMMITS = 10_000
"""Commits that are looked through for signatures, or for the one applied last."""
_REF = "--ref names one, or a commit by all of its 40 digits."

T = TypeVar("T")


@asynccontextmanager
async def open_git(
    location: Location, settings: GitSettings, *, ref: str = "", path: str = "", verify: Verify = "none", data: Path | None = None
) -> "AsyncIterator[GitSource]":
    """Open a repository at a ref and a folder in it. `data`: where copies are kept; None: nowhere. Raises `Invalid`."""
    ref, path = checked_ref(ref), checked_path(path)
    loop = asyncio.get_running_loop()
    if location.is_local:
        yield GitSource(location, settings, None, LocalGitClient(), asked=(ref, path, verify))
        return
    folder = data / hashlib.sha256(location.shown.encode()).hexdigest()[:24] if data is not None else None
    mirror = await asyncio.to_thread(Mirror, folder)
    try:
        if location.scheme == "ssh":
            yield GitSource(location, settings, mirror, SshRemote(location, settings), asked=(ref, path, verify))
        else:
            async with open_http(location, settings) as http:
                client = HttpsRemote(location, settings, http, loop)
                yield GitSource(location, settings, mirror, client, asked=(ref, path, verify))
    finally:
        mirror.close()


class GitSource:
    """Implements `hansa.apply.repository.model.Source`."""

    def __init__(
        self, location: Location, settings: GitSettings, mirror: Mirror | None, client: GitClient, *, asked: tuple[str, str, Verify]
    ) -> None:
        self.ref, self._path, self._verify = asked
        self.origin = origin_of(location, self._path)
        self._location = location
        self._settings = settings
        self._mirror = mirror
        self._client = client
        self._local: Repo | None = None
        self._commit = ""
        self._turn = asyncio.Lock()

    async def look(self) -> str:
        """Which object the ref names: a commit, or a tag of one."""
        return await self._in_thread(self._look)

    async def tree(self, commit: str, *, since: str = "", known: Tree | None = None) -> Tree:
        self._commit = commit
        return await self._in_thread(lambda: self._mended(lambda: self._tree(commit, since, known)))

    async def files_at(self, commit: str) -> dict[str, File] | None:
        return await self._in_thread(lambda: self._files_at(commit))

    async def read(self, path: str, file: File) -> bytes:
        return await self._in_thread(lambda: self._mended(lambda: trees.content(self._repo.object_store, file)))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        def carefully() -> T:
            with told(self._location.shown):
                return work()

        async with self._turn:
            return await asyncio.to_thread(carefully)

    @property
    def _repo(self) -> Repo:
        if self._mirror is not None:
            return self._mirror.repo
        if self._local is None:
            self._local = self._opened()
        return self._local

    def _opened(self) -> Repo:
        if not Path(self._location.path).is_dir():
            raise RepositoryRefused(Reason.GONE, f"there is no folder {self._location.path}")
        return Repo(self._location.path)

    def _mended(self, work: Callable[[], T]) -> T:
        """Do it; when our copy is broken, once more with a new one."""
        try:
            with told(self._location.shown):
                return work()
        except RepositoryAway as error:
            if self._mirror is None or error.reason == Reason.UNREACHABLE:
                raise
        self._mirror.remake()
        self._bring()
        return work()

    def _bring(self) -> None:
        if self._mirror is not None and not self._mirror.has(self._commit):
            path = self._location.path if self._location.scheme == "ssh" else ""
            try:
                self._mirror.bring(self._client, path, self._commit, whole=self._verify == "all")
            except RepositoryAway as error:
                if not is_commit(self.ref):
                    raise
                raise RepositoryAway(error.reason, error.detail, hint=f"Is {self.ref} a commit of it?") from error

    def _look(self) -> str:
        if self._mirror is None:
            # Anew each time: it may have been moved, packed or replaced.
            if self._local is not None:
                self._local.close()
            self._local = self._opened()
        if is_commit(self.ref):
            return self.ref
        names = (
            [f"refs/heads/{self.ref}", f"refs/tags/{self.ref}"] if self.ref and not self.ref.startswith("refs/") else [self.ref or "HEAD"]
        )
        found = self._refs([name.encode() for name in names])
        for name in names:
            # Of a tag that has a text of its own, the commit it stands for, where the server says it.
            sha = found.get(f"{name}^{{}}") or found.get(name)
            if sha:
                return sha
        if not self._refs(None):
            raise RepositoryRefused(Reason.EMPTY, f"the repository {self._location.shown} has no commit yet")
        shown = self.ref or "HEAD, which names no branch that is there"
        raise RepositoryRefused(Reason.REF_MISSING, f"{self._location.shown} has no branch and no tag {shown}", hint=_REF)

    def _refs(self, prefixes: list[bytes] | None) -> dict[str, str]:
        path = self._location.path if self._location.scheme != "https" and self._location.scheme != "http" else ""
        answer = self._client.get_refs(path.encode(), ref_prefix=prefixes)
        return {name.decode("utf-8", "replace"): sha.decode() for name, sha in answer.refs.items() if sha is not None}

    def _tree(self, commit: str, since: str, known: Tree | None) -> Tree:
        self._bring()
        repo = self._repo
        if is_commit(self.ref) and ObjectID(commit.encode()) not in repo.object_store:
            raise RepositoryRefused(Reason.REF_MISSING, f"{self._location.shown} has no commit {commit}", hint=_REF)
        found = commit_of(repo, commit)
        name = found.id.decode()
        note = self._check(repo, found, since)
        root = trees.folder(repo.object_store, found.tree, self._path)
        return Tree(name, self._files(repo, root, known), note)

    def _files(self, repo: Repo, root: ObjectID, known: Tree | None) -> dict[str, File]:
        if known is not None and ObjectID(known.commit.encode()) in repo.object_store:
            try:
                before = trees.folder(repo.object_store, commit_of(repo, known.commit).tree, self._path)
                return trees.changed(repo.object_store, before, root, path=self._path, known=known.files)
            except (KeyError, RepositoryAway):
                # What was there before is no longer whole: then all of what is there now is read.
                pass
        return trees.files(repo.object_store, root, self._path)

    def _files_at(self, commit: str) -> dict[str, File] | None:
        if not is_commit(commit) or ObjectID(commit.encode()) not in self._repo.object_store:
            return None
        try:
            store = self._repo.object_store
            return trees.files(store, trees.folder(store, commit_of(self._repo, commit).tree, self._path), self._path)
        except (RepositoryAway, RepositoryRefused):
            return None

    def _check(self, repo: Repo, found: Commit, since: str) -> str:
        """Check signatures as asked; what is to be said of the history."""
        name = found.id.decode()
        if self._verify != "none":
            believed, now = read_believed(self._settings), clock.now()
            for commit in self._new_commits(repo, found, since):
                verify(commit, believed, now)
        if not since or since == name:
            return ""
        before = ancestry(repo, name, since, most=MAX_COMMITS)
        if before is None:
            return "" if self._mirror is None else f"{since[:12]}, applied last, is not among the {HISTORY} commits before {name[:12]}"
        return "" if before else f"the history was rewritten: {since[:12]}, applied last, does not come before {name[:12]}"

    def _new_commits(self, repo: Repo, found: Commit, since: str) -> list[Commit]:
        if self._verify == "head" or not since:
            return [found]
        known = [ObjectID(since.encode())] if ObjectID(since.encode()) in repo.object_store else []
        walker = Walker(repo.object_store, [found.id], exclude=known, max_entries=MAX_COMMITS + 1)
        new = [entry.commit for entry in walker]
        if len(new) > MAX_COMMITS:
            detail = f"more than {MAX_COMMITS} commits came since the one applied last: their signatures can't all be checked"
            raise RepositoryRefused(Reason.SIGNATURE_INVALID, detail)
        return new or [found]
