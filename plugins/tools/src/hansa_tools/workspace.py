"""The workspace of a run as a closed folder: paths are walked one component at a time, and no link is ever followed.

Must not know tools. Warning: never join a path and open it. Between a check and an open, a component may become a link; here
every component is opened relative to the folder before it, and the kernel refuses links.
"""

import contextlib
import os
import stat
from collections.abc import Generator
from pathlib import Path

from hansa_sdk import ToolFailed

MAX_DEPTH = 16
OWN_PREFIX = ".hansa-"
"""Names of files that are being written; not shown, and not to be chosen."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def components(path: str, *, empty: bool = False) -> list[str]:
    """The names in a relative path. `empty` lets the workspace itself pass. Raises `ToolFailed`."""
    hint = "Write a path such as `notes/today.txt`, relative to the workspace."
    if "\0" in path or not _encodable(path):
        raise ToolFailed("the path holds characters that no file name has", hint=hint)
    if path.startswith("/"):
        raise ToolFailed(f"the path {path[:80]!r} is absolute", hint=hint)
    names = [name for name in path.split("/") if name not in ("", ".")]
    if ".." in names:
        raise ToolFailed(f"the path {path[:80]!r} goes up with `..`", hint=hint)
    if any(name.startswith(OWN_PREFIX) for name in names):
        raise ToolFailed(f"names that begin with {OWN_PREFIX!r} are reserved", hint=hint)
    if len(names) > MAX_DEPTH:
        raise ToolFailed(f"the path is deeper than {MAX_DEPTH} folders", hint=hint)
    if not names and not empty:
        raise ToolFailed("the path names no file", hint=hint)
    return names


@contextlib.contextmanager
def open_folder(workspace: Path, names: list[str], *, create: bool = False) -> Generator[int]:
    """A descriptor of a folder below the workspace; `create` makes what is missing. Raises `ToolFailed`."""
    with _told(names), contextlib.ExitStack() as opened:
        # The workspace itself is the platform's to choose, and may well be reached through a link.
        folder = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.callback(os.close, folder)
        for name in names:
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=folder)
            folder = os.open(name, _FOLDER, dir_fd=folder)
            opened.callback(os.close, folder)
        yield folder


@contextlib.contextmanager
def open_file(workspace: Path, names: list[str]) -> Generator[int]:
    """A descriptor for reading a regular file below the workspace. Raises `ToolFailed`."""
    with open_folder(workspace, names[:-1]) as folder, _told(names):
        # Looked at before it is opened, since opening a device may already do something; looked at again since it may have changed.
        _require_plain(os.stat(names[-1], dir_fd=folder, follow_symlinks=False), names)
        file = os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=folder)
        try:
            _require_plain(os.fstat(file), names)
            yield file
        finally:
            os.close(file)


def replace_file(workspace: Path, names: list[str], *, data: bytes, temporary: str) -> None:
    """Write a file whole or not at all: into `temporary` beside it, then renamed. Makes missing folders. Raises `ToolFailed`."""
    with open_folder(workspace, names[:-1], create=True) as folder, _told(names):
        with contextlib.suppress(FileNotFoundError):
            _require_plain(os.stat(names[-1], dir_fd=folder, follow_symlinks=False), names)
        # An attempt that was killed may have left it.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            with os.fdopen(file, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(temporary, names[-1], src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(temporary, dir_fd=folder)
            raise
        os.fsync(folder)


@contextlib.contextmanager
def _told(names: list[str]) -> Generator[None]:
    """Turns what the operating system says into what the model is told: the name as it was given, never a path of the host."""
    shown = "/".join(names)[:200] or "the workspace"
    try:
        yield
    except FileNotFoundError as error:
        raise ToolFailed(f"there is no {shown!r}", hint="files_list shows what there is.") from error
    except OSError as error:
        raise ToolFailed(f"{shown!r} can't be used: {error.strerror or type(error).__name__}; links are not followed") from error


def _require_plain(status: os.stat_result, names: list[str]) -> None:
    shown = "/".join(names)[:200]
    if stat.S_ISDIR(status.st_mode):
        raise ToolFailed(f"{shown!r} is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise ToolFailed(f"{shown!r} is not a regular file", hint="Links, pipes, sockets and devices are not opened.")
    if status.st_nlink > 1:
        raise ToolFailed(f"{shown!r} has a second name, maybe outside of the workspace")


def _encodable(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
