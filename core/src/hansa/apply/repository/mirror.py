"""Our own copy of a repository: bare, as shallow as can be, kept between starts, and made anew when it is broken.

Blocks: for threads alone. Warning: nothing in it matters; whoever deletes it costs the next start a download.
"""

import fcntl
import logging
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import BinaryIO, cast

from dulwich.client import GitClient
from dulwich.errors import FileFormatException, GitProtocolError, HangupException, NotGitRepository
from dulwich.objects import Commit, ObjectID, Tag
from dulwich.refs import Ref
from dulwich.repo import InvalidWorktreeConfiguration, Repo, UnsupportedExtension, UnsupportedVersion

from hansa.apply.repository.failures import Reason, RepositoryAway, RepositoryRefused
from hansa.apply.repository.model import Unreadable
from hansa.apply.repository.packs import MAX_PACK_BYTES, judge
from hansa.errors import HansaError

SEEN = Ref(b"refs/heads/seen")
"""The newest commit that we have, from which the next download starts."""
HISTORY = 32
"""Commits before the newest that are asked for, so that a rewritten history is seen as one."""
_MAX_PACKS = 64
"""After so many downloads the copy is made anew, which is one pack again."""
_MAX_TAGS = 8
_UNUSABLE = (
    NotGitRepository,
    FileFormatException,
    UnsupportedVersion,
    UnsupportedExtension,
    InvalidWorktreeConfiguration,
    OSError,
    ValueError,
)
"""What comes of opening a copy that is half written, or was written by something else."""
log = logging.getLogger("hansa.sync")
"""Not structlog's, which would write to stdout in a command that has set up no log."""


@contextmanager
def told(shown: str) -> Iterator[None]:
    """Say what dulwich raises in our words; `shown` names the repository."""
    try:
        yield
    except (HansaError, Unreadable):
        raise
    except NotGitRepository as error:
        raise RepositoryRefused(Reason.NOT_A_REPOSITORY, f"there is no Git repository at {shown}") from error
    except HangupException as error:
        lines = [line.decode("utf-8", "replace") for line in error.stderr_lines or ()]
        raise _meant(shown, " ".join(lines)) from error
    except GitProtocolError as error:
        raise _meant(shown, str(error)) from error
    except (KeyError, OSError, zlib.error) as error:
        raise RepositoryAway(Reason.DAMAGED, f"{shown} can't be read: {_plain(str(error)) or type(error).__name__}") from error
    except Exception as error:
        # Whatever a server sends may break dulwich in any way; what it raises then is not for the reader.
        raise RepositoryAway(Reason.DAMAGED, f"{shown} does not speak Git as it should ({type(error).__name__})") from error


class Mirror:
    """A copy in a folder; `close` it. With an empty folder name, or one that another process uses, it is a temporary one."""

    def __init__(self, folder: Path | None) -> None:
        self._temporary: TemporaryDirectory[str] | None = None
        self._lock: BinaryIO | None = None
        self._folder = folder if folder is not None and self._locked(folder) else self._elsewhere()
        self._repo: Repo | None = None

    def close(self) -> None:
        self._shut()
        if self._lock is not None:
            self._lock.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    @property
    def repo(self) -> Repo:
        """The copy, made when there is none that can be used."""
        if self._repo is None:
            self._repo = self._opened()
        return self._repo

    def has(self, sha: str) -> bool:
        """Whether an object is here."""
        return ObjectID(sha.encode()) in self.repo.object_store

    def remake(self) -> None:
        """Begin anew with an empty copy."""
        self._shut()
        shutil.rmtree(self._folder / "copy.git", ignore_errors=True)

    def bring(self, client: GitClient, path: str, want: str, *, whole: bool) -> None:
        """Download what is missing of a commit; its whole history if `whole`."""
        repo, sha = self.repo, ObjectID(want.encode())
        depth = None if whole else HISTORY if SEEN in repo.refs else 1
        with TemporaryFile(dir=self._folder) as pack:

            def keep(data: bytes) -> int:
                if pack.tell() + len(data) > MAX_PACK_BYTES:
                    raise RepositoryRefused(Reason.TOO_LARGE, f"the server sends more than {MAX_PACK_BYTES} bytes")
                return pack.write(data)

            def wants(refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:
                return [sha]

            with told("the server"):
                result = client.fetch_pack(path.encode(), wants, repo.get_graph_walker(), keep, depth=depth)
            if pack.tell():
                pack.seek(0)
                count = judge(cast(BinaryIO, pack))
                pack.seek(0)
                if count:
                    repo.object_store.add_thin_pack(pack.read, None)
        if sha not in repo.object_store:
            raise RepositoryAway(Reason.UNREACHABLE, f"the server does not send {want}, which it names as its newest commit")
        repo.update_shallow(result.new_shallow, result.new_unshallow)
        repo.refs[SEEN] = ObjectID(commit_of(repo, want).id)

    def _opened(self) -> Repo:
        folder = self._folder / "copy.git"
        if folder.exists():
            why = "it is in too many pieces"
            try:
                if len(list((folder / "objects" / "pack").glob("*.pack"))) <= _MAX_PACKS:
                    return Repo(str(folder))
            except _UNUSABLE as error:
                why = f"{type(error).__name__}: {_plain(str(error))}"
            log.info("the copy in %s is made anew: %s", folder, why)
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        return Repo.init_bare(str(folder))

    def _shut(self) -> None:
        if self._repo is not None:
            self._repo.close()
            self._repo = None

    def _elsewhere(self) -> Path:
        self._temporary = TemporaryDirectory(prefix="hansa-repository-")
        return Path(self._temporary.name)

    def _locked(self, folder: Path) -> bool:
        """Whether nobody else uses the folder; then nobody does until `close`."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return False
        self._lock = lock
        return True


def commit_of(repo: Repo, sha: str) -> Commit:
    """The commit that a name stands for, through tags. Raises `RepositoryAway`, `RepositoryRefused`."""
    name = ObjectID(sha.encode())
    for _ in range(_MAX_TAGS):
        try:
            found = repo.object_store[name]
        except KeyError:
            raise RepositoryAway(Reason.DAMAGED, f"the object {name.decode()} is missing in the repository") from None
        if isinstance(found, Commit):
            return found
        if not isinstance(found, Tag):
            break
        name = found.object[1]
    raise RepositoryRefused(Reason.REF_MISSING, f"{sha} is not a commit")


def ancestry(repo: Repo, new: str, old: str, *, most: int) -> bool | None:
    """Whether `old` is `new` or comes before it; None: not known, for not all of the history is here, or it is too long."""
    shallow = repo.get_shallow()
    seen: set[ObjectID] = set()
    waiting: Sequence[ObjectID] = [ObjectID(new.encode())]
    known = True
    while waiting:
        following: list[ObjectID] = []
        for sha in waiting:
            if sha.decode() == old:
                return True
            if sha in seen:
                continue
            seen.add(sha)
            if len(seen) > most:
                return None
            if sha in shallow or sha not in repo.object_store:
                known = False
                continue
            found = repo.object_store[sha]
            following += found.parents if isinstance(found, Commit) else []
        waiting = following
    return False if known else None


def _meant(shown: str, words: str) -> Exception:
    """What a server, or the program ssh, means by what it says."""
    said = _plain(words) or "it hung up"
    text = said.lower()
    if "host key verification failed" in text:
        hint = "Put its key into the file that HANSA_GIT_SSH_KNOWN_HOSTS_FILE names, or into ~/.ssh/known_hosts, after looking at it."
        return RepositoryRefused(Reason.DENIED, f"the host key of {shown} is not known: {said}", hint=hint)
    if "permission denied" in text or "authentication fail" in text:
        return RepositoryRefused(Reason.DENIED, f"{shown} does not let us in: {said}", hint="HANSA_GIT_SSH_KEY_FILE names a key.")
    if "does not exist" in text or "not found" in text or "not appear to be a git" in text:
        return RepositoryRefused(Reason.GONE, f"there is no repository at {shown}: {said}")
    return RepositoryAway(Reason.UNREACHABLE, f"{shown} can't be read: {said}")


def _plain(text: str) -> str:
    """What a stranger said, on one short line without anything invisible."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line[:300]
