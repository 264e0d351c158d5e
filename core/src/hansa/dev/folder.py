"""The data folder of `hansa up`: one lock, one version, one place for every file.

    DIR/  lock  version.json  ready.json  api-key  postgres/  nats/  logs/  run/  secrets/

Must not know the servers that live in it. Warning: whoever holds the lock owns the folder; files are changed only under it.
"""

import asyncio
import contextlib
import fcntl
import os
import pwd
import string
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Self

import msgspec

from hansa import ids
from hansa.dev import processes
from hansa.dev.failures import FolderDamaged, FolderInUse, FolderTooNew, FolderTooOld, FolderUnreachable

SECRET_LENGTH = 43
"""Characters of letters and digits: 256 bits."""

LOCK_TRIES = 20
LOCK_PAUSE_SECONDS = 0.05


class Versions(msgspec.Struct, frozen=True):
    """What wrote a folder: the version of its layout, and PostgreSQL's major version."""

    format: int
    postgres: int


CURRENT = Versions(format=1, postgres=18)

UPGRADES: Mapping[int, Callable[[Path], None]] = MappingProxyType({})
"""For each older format the step to the next one. A step may be interrupted and run again."""


class Holder(msgspec.Struct, frozen=True):
    """The process that holds the folder's lock; pid 0 while it has not yet written its name."""

    pid: int
    tick: int


class ReadyFile(msgspec.Struct, frozen=True):
    """ready.json: there while the stack is ready. No secrets: passwords stand in `secrets/`."""

    url: str
    api_key_file: str
    postgres: str
    nats: str
    pid: int
    started_at: datetime


class DataFolder:
    """Owns the folder from `async with` to its end. Raises `FolderInUse`, `FolderTooNew`, `FolderTooOld`, `FolderUnreachable`."""

    def __init__(self, path: Path, *, versions: Versions = CURRENT, upgrades: Mapping[int, Callable[[Path], None]] = UPGRADES) -> None:
        self.path = path.absolute()
        self.postgres = self.path / "postgres"
        self.nats = self.path / "nats"
        self.logs = self.path / "logs"
        self.run = self.path / "run"
        self.secrets = self.path / "secrets"
        self.ready_file = self.path / "ready.json"
        self.api_key = self.path / "api-key"
        self._versions = versions
        self._upgrades = upgrades
        self._lock = -1

    async def __aenter__(self) -> Self:
        with reaching(self.path):
            self.make()
            await self._take_lock()
            try:
                self._check_version()
                for private in (self.nats, self.secrets):
                    private.mkdir(mode=0o700, exist_ok=True)
                self.run.mkdir(exist_ok=True)
                self.ready_file.unlink(missing_ok=True)
            except BaseException:
                self._drop_lock()
                raise
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.ready_file.unlink(missing_ok=True)
        self._drop_lock()

    def make(self) -> None:
        """The folder itself and its logs, which may be written to before the lock is held."""
        with reaching(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self.logs.mkdir(mode=0o700, exist_ok=True)

    def log(self, name: str) -> Path:
        """Where the output of a process goes."""
        return self.logs / f"{name}.log"

    def secret_file(self, name: str) -> Path:
        """Path of a secret, which is made when it is not there."""
        path = self.secrets / name
        with reaching(path):
            missing = not path.exists()
        if missing:
            self.write(path, ids.new_secret(SECRET_LENGTH, string.ascii_letters + string.digits).encode(), mode=0o600)
        return path

    def secret(self, name: str) -> str:
        """A secret, made when it is not there and the same ever after."""
        path = self.secret_file(name)
        with reaching(path):
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
            value = path.read_text().strip()
        if not value:
            raise FolderDamaged(f"the secret {path} is empty", hint="Put back the file from a backup of the data folder.")
        return value

    def write(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        """Write a file whole or not at all: a reader, or a crash, never sees half of it."""
        part = path.with_name(f".{path.name}.part")
        with reaching(path):
            part.unlink(missing_ok=True)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            part.replace(path)
            sync_folder(path.parent)

    def write_ready(self, ready: ReadyFile) -> None:
        """Tell others that the stack is ready."""
        self.write(self.ready_file, msgspec.json.format(msgspec.json.encode(ready), indent=2) + b"\n")

    def read_ready(self) -> ReadyFile | None:
        """What ready.json says, if the process that wrote it still holds the folder."""
        try:
            ready = msgspec.json.decode(self.ready_file.read_bytes(), type=ReadyFile)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        holder = self.holder()
        return ready if holder and holder.pid == ready.pid else None

    def holder(self) -> Holder | None:
        """Who holds the folder now; None when nobody does."""
        with reaching(self.path):
            try:
                descriptor = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                return None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pid, _, tick = os.pread(descriptor, 64, 0).decode().partition(" ")
                return Holder(pid=int(pid or 0), tick=int(tick or 0))
            finally:
                os.close(descriptor)
        return None

    async def _take_lock(self) -> None:
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        for _ in range(LOCK_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Someone may only be looking whether it is held (`holder`), which takes no time.
                await asyncio.sleep(LOCK_PAUSE_SECONDS)
                continue
            self._lock = descriptor
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {processes.start_tick(os.getpid())}".encode(), 0)
            return
        os.close(descriptor)
        raise in_use(self)

    def _drop_lock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _check_version(self) -> None:
        path = self.path / "version.json"
        try:
            found = msgspec.json.decode(path.read_bytes(), type=Versions)
        except FileNotFoundError:
            if (self.postgres / "data" / "PG_VERSION").exists():  # an empty place, such as a disk just mounted, is none
                raise FolderDamaged(
                    f"{path} is missing, although the folder holds a database: nobody can say which version wrote it",
                    hint="Put back the file from a backup of the data folder, or use another folder: --data DIR. Nothing was changed.",
                ) from None
            found = self._versions
            self.write(path, msgspec.json.encode(found) + b"\n")
        except msgspec.DecodeError as error:
            raise FolderDamaged(f"{path} is not readable: {error}", hint="Put back the file from a backup of the data folder.") from error
        _refuse_other(self.path, found, self._versions)
        for step in range(found.format, self._versions.format):
            if step not in self._upgrades:
                raise FolderTooOld(
                    f"the data folder {self.path} has format {found.format}, which this version, of {self._versions.format}, can't upgrade",
                    hint="Start it once with a version in between, or use another folder: --data DIR.",
                )
            self._upgrades[step](self.path)
            self.write(path, msgspec.json.encode(Versions(format=step + 1, postgres=found.postgres)) + b"\n")


def _refuse_other(path: Path, found: Versions, known: Versions) -> None:
    if found.format > known.format or found.postgres > known.postgres:
        raise FolderTooNew(
            f"the data folder {path} was written by a newer version: format {found.format} with PostgreSQL {found.postgres}; "
            f"this version reads format {known.format} with PostgreSQL {known.postgres}",
            hint="Upgrade Hansa, or use another folder: --data DIR. Nothing in it was changed.",
        )
    if found.postgres < known.postgres:
        raise FolderTooOld(
            f"the data folder {path} holds a database of PostgreSQL {found.postgres}; this version runs PostgreSQL {known.postgres}",
            hint="Dump it with the version that wrote it (pg_dumpall) and load it into a new folder: --data DIR.",
        )


def in_use(folder: DataFolder) -> FolderInUse:
    """The error that says who holds the folder."""
    holder = folder.holder()
    who = f"process {holder.pid}" if holder and holder.pid else "another process"
    return FolderInUse(
        f"the data folder {folder.path} is in use by {who}",
        hint=f"Use that instance, stop it with `hansa down --data {folder.path}`, or use another folder: --data DIR.",
    )


def sync_folder(path: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Turn the system's refusals into `FolderUnreachable`, which names the path and the user."""
    try:
        yield
    except OSError as error:
        raise FolderUnreachable(
            f"user {user_name(os.geteuid())} can't use {error.filename or path}: {error.strerror}",
            hint="Give this user the folder (chown, chmod 700), free its disk, or use another folder: --data DIR.",
        ) from error


def user_name(uid: int) -> str:
    """A user's name, or the number when it has none, as in many containers."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
