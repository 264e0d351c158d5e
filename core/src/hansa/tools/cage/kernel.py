"""System calls that the standard library has no function for. Linux only; standard library only.

Warning: everything here concerns the calling process, so it is called in a process that was made to be caged, never in a worker.
"""

import contextlib
import ctypes
import os
import platform

NEW_NAMESPACE = {"mount": 0x00020000, "uts": 0x04000000, "ipc": 0x08000000, "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000}

RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
BIND, REC, PRIVATE = 1 << 12, 1 << 14, 1 << 18
DETACH = 2

_PDEATHSIG, _DUMPABLE, _CAPBSET_DROP, _NO_NEW_PRIVS, _SUBREAPER = 1, 4, 24, 38, 36
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_SETATTR = 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_LAST_CAPABILITY = 63

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def syscall(number: int, *arguments: object) -> int:
    """A system call by its number. Raises OSError."""
    return _checked(_libc.syscall(ctypes.c_long(number), *arguments))


def prctl(option: int, *arguments: object) -> int:
    """Raises OSError."""
    return _checked(_libc.prctl(option, *(ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments)))


def unshare(namespace: str) -> None:
    """Leave a namespace for a new one. Raises OSError."""
    _checked(_libc.unshare(NEW_NAMESPACE[namespace]))


def mount(source: str, target: str, kind: str, flags: int, *, options: str = "") -> None:
    """Raises OSError with the target."""
    done = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode() or None)
    _checked(done, target)


def restrict_mount(target: str, flags: int, *, recursive: bool = True) -> None:
    """Add restrictions (RDONLY, NOSUID, NODEV, NOEXEC) to what is mounted there and below. Raises OSError, also on Linux < 5.12."""
    attributes = _MountAttributes(set=flags)
    way = _AT_RECURSIVE if recursive else 0
    syscall(_MOUNT_SETATTR, _AT_FDCWD, target.encode(), way, ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes)))


def pivot_root(new: str, old: str) -> None:
    """Raises OSError."""
    number = _PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(f"no number of pivot_root is known for {platform.machine()}")
    syscall(number, new.encode(), old.encode())


def unmount(target: str) -> None:
    """Take a mount away, also while it is in use. Raises OSError."""
    _checked(_libc.umount2(target.encode(), DETACH), target)


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that made it ends."""
    prctl(_PDEATHSIG, 9)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends."""
    prctl(_SUBREAPER, 1)


def be_dumpable(yes: int) -> None:
    """Whether files in /proc/self belong to this process's user (1), or to root (0)."""
    prctl(_DUMPABLE, yes)


def gain_no_privileges() -> None:
    """From here on no program that is started gains rights, whatever its file says."""
    prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)


def drop_capabilities() -> None:
    """Let no program that is started hold any capability. What may not be dropped was not held."""
    for capability in range(_LAST_CAPABILITY + 1):
        with contextlib.suppress(OSError):
            prctl(_CAPBSET_DROP, capability, 0, 0, 0)


def _checked(result: int, place: str | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), place)
    return result
