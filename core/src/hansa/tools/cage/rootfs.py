"""A file system for the cage alone: what programs need, to be read; the workspace and /tmp, to be written; nothing else is there.

For a process in a new namespace of mounts. Linux >= 5.12; standard library only.
"""

import contextlib
import os
import stat

from hansa.tools.cage import kernel
from hansa.tools.cage.order import WORKSPACE, Order

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
TEMPORARY = _BASE = "/tmp"  # noqa: S108 - the cage's own, and before it a place to mount at
_LINKS = {"/dev/fd": "/proc/self/fd", "/dev/shm": TEMPORARY}  # noqa: S108
_OLD = "/old"


def begin() -> None:
    """Move into an empty file system; what was there is below it for now. Raises OSError and leaves all as it was."""
    kernel.mount("none", "/", "", kernel.REC | kernel.PRIVATE)
    kernel.mount("tmpfs", _BASE, "tmpfs", kernel.NOSUID | kernel.NODEV, options="mode=0755,size=1m,nr_inodes=4096")
    try:
        kernel.restrict_mount(_BASE, kernel.NOSUID)
        os.chdir(_BASE)
        os.mkdir(_OLD[1:])
        kernel.pivot_root(".", _OLD[1:])
    except OSError:
        kernel.unmount(_BASE)
        raise
    os.chdir("/")


def furnish(order: Order, *, processes: bool) -> None:
    """Show in it what the order lists, and close the way back. `processes`: there is a namespace of them, which /proc can show."""
    os.mkdir(TEMPORARY)
    size = f"mode=1777,size={order.bounds.disk_bytes},nr_inodes=65536"
    kernel.mount("tmpfs", TEMPORARY, "tmpfs", kernel.NOSUID | kernel.NODEV, options=size)
    for path in _outermost(order.readable):
        _show(path)
    for path in DEVICES:
        _bind(_OLD + path, path, 0)
    _bind(_OLD + order.workspace, WORKSPACE, kernel.NOSUID | kernel.NODEV)
    for path, target in _LINKS.items():
        os.symlink(target, path)
    os.mkdir("/proc")
    if processes:
        # Where /proc is masked, as in many containers, a whole one is not given: then there is none.
        with contextlib.suppress(OSError):
            kernel.mount("proc", "/proc", "proc", kernel.NOSUID | kernel.NODEV | kernel.NOEXEC, options="subset=pid")
    kernel.unmount(_OLD)
    os.rmdir(_OLD)
    kernel.restrict_mount("/", kernel.RDONLY, recursive=False)


def _outermost(paths: list[str]) -> list[str]:
    """Paths without those that lie in another of them; a link counts as a path of its own."""
    kept: list[str] = []
    for path in sorted(set(paths), key=len):
        if not any(path.startswith(f"{each}/") and not os.path.islink(_OLD + each) for each in kept):
            kept.append(path)
    return kept


def _show(path: str) -> None:
    try:
        status = os.lstat(_OLD + path)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(os.readlink(_OLD + path), path)
    else:
        _bind(_OLD + path, path, kernel.RDONLY | kernel.NOSUID | kernel.NODEV)


def _bind(source: str, target: str, flags: int) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))
    kernel.mount(source, target, "", kernel.BIND | kernel.REC)
    if flags:
        kernel.restrict_mount(target, flags)
