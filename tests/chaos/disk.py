"""A disk whose plug can be pulled and that can be filled: ext4 on a loop device. Needs root, and a kernel with both.

Stopping the file system at once, without writing its journal, loses all that was not synced, as a power cut does; kill -9
alone does not, for the page cache outlives every process.
"""

import contextlib
import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
MEBIBYTE = 1 << 20
UNMOUNT_SECONDS = 20.0


class DiskRefused(Exception):
    """This machine lets nobody make such a disk; the text says why."""


class Disk:
    """One disk, mounted at `path`. Use `open_disk`."""

    def __init__(self, image: Path, path: Path) -> None:
        self.path = path
        self._image = image
        self._ballast = path / "ballast"

    def mount(self) -> None:
        _run("mount", "-o", "loop,commit=60", str(self._image), str(self.path))

    def unplug(self) -> None:
        """What was not synced is gone. Every process on it must end before `replug`."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def replug(self) -> None:
        self.unmount()
        self.mount()

    def unmount(self) -> None:
        end = time.monotonic() + UNMOUNT_SECONDS
        while True:
            try:
                return _run("umount", str(self.path))
            except DiskRefused:
                if time.monotonic() >= end:
                    raise
                time.sleep(0.05)

    def fill(self) -> None:
        """Leave no free block."""
        with self._ballast.open("wb", buffering=0) as ballast:
            # Reserved, not written: it costs nothing and takes the space all the same.
            step = 64 * MEBIBYTE
            while step >= 4096:
                try:
                    os.posix_fallocate(ballast.fileno(), os.fstat(ballast.fileno()).st_size, step)
                except OSError:
                    step //= 4

    def free(self) -> None:
        """Give the blocks back, at once: without the sync they would come back with the journal's next commit."""
        self._ballast.unlink(missing_ok=True)
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def open_disk(image: Path, path: Path, *, mebibytes: int) -> Iterator[Disk]:
    """Make a disk in the file `image` and mount it at `path`. Raises `DiskRefused`."""
    if os.geteuid() != 0:
        raise DiskRefused("needs root")
    with image.open("wb") as file:
        file.truncate(mebibytes * MEBIBYTE)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
    path.mkdir(parents=True, exist_ok=True)
    disk = Disk(image, path)
    disk.mount()
    try:
        yield disk
    finally:
        with contextlib.suppress(DiskRefused):
            disk.unmount()
        image.unlink()


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except FileNotFoundError as error:
        raise DiskRefused(f"{command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise DiskRefused(f"{command[0]}: {error.stderr.decode(errors='replace').strip()}") from error
