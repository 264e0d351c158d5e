"""How much of the disk a caged program takes: the files of its workspace, and those that have no name any more and are still held.

For the process that watches from outside. Linux only; standard library only. Warning: files on their way from one process to another
(`SCM_RIGHTS`) are seen by nobody; the kernel lets no user have more of them under way than it may have open.
"""

import contextlib
import mmap
import os
import stat
from collections.abc import Iterable, Iterator

from hansa.tools.cage.order import Bounds

_BLOCK = 512
_GONE = " (deleted)"


def disk_usage(workspace: str, processes: Iterable[int], bounds: Bounds) -> int:
    """Bytes that are taken; looked at until it is more than may be."""
    used = _of_folder(workspace, bounds.disk_bytes)
    return used if used > bounds.disk_bytes else used + _of_nameless(processes, bounds.file_bytes)


def _of_folder(folder: str, enough: int) -> int:
    """Bytes that files in a folder take; looked at until it is more than `enough`. What can't be read counts as too much."""
    used, todo = 0, [folder]
    while todo and used <= enough:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    used += max(status.st_blocks * _BLOCK, _BLOCK)
                    if stat.S_ISDIR(status.st_mode):
                        todo.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError:
            return enough + 1
    return used


def _of_nameless(processes: Iterable[int], largest: int) -> int:
    """Bytes of files without a name that processes hold, open or mapped. How long a mapped one is can't be seen: as long as may be."""
    opened, mapped = dict[int, int](), set[int]()
    for process in processes:
        for status in _open_files(process):
            if stat.S_ISREG(status.st_mode) and not status.st_nlink:
                opened[status.st_ino] = status.st_blocks * _BLOCK
        mapped |= _mapped_files(process)
    return sum(opened.values()) + largest * len(mapped - opened.keys())


def _open_files(process: int) -> Iterator[os.stat_result]:
    with contextlib.suppress(OSError), os.scandir(f"/proc/{process}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                yield entry.stat()


def _mapped_files(process: int) -> set[int]:
    """Inodes of files without a name that a process has mapped, but for memory that processes share without a file."""
    found = set[int]()
    with contextlib.suppress(OSError), open(f"/proc/{process}/maps", errors="replace") as lines:
        for line in lines:
            if line.rstrip("\n").endswith(_GONE):
                _, _, _, device, inode, _ = line.split(maxsplit=5)
                if device != _SHARED_MEMORY:
                    found.add(int(inode))
    return found


def _device_of_shared_memory() -> str:
    with mmap.mmap(-1, mmap.PAGESIZE), open("/proc/self/maps") as lines:
        return next((line.split()[3] for line in lines if "/dev/zero" in line), "")


_SHARED_MEMORY = _device_of_shared_memory()
