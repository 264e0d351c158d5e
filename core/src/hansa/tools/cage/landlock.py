"""Landlock: the kernel lets this process and all it starts reach only listed files, no TCP port, and no process outside.

What the running kernel can do is asked for; what it can't is left out. Linux only; standard library only.
"""

import ctypes
import os
import stat
from collections.abc import Iterable

from hansa.tools.cage import kernel
from hansa.tools.cage.order import SIGNALS_FROM

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_FIRST, _REFER = (1 << 13) - 1, 1 << 13
_READING = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_TCP, _CONNECT_TCP = 0b11, 0b10
_SCOPES = 0b11
"""Abstract unix sockets, and signals."""


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("access", ctypes.c_uint64), ("parent", ctypes.c_int32)]


class _Port(ctypes.Structure):
    _fields_ = [("access", ctypes.c_uint64), ("port", ctypes.c_uint64)]


def version() -> int:
    """What the kernel can do; 0: it has no Landlock, or it is off."""
    try:
        return kernel.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION)
    except OSError:
        return 0


def prepare(readable: Iterable[str], writable: Iterable[str], *, port: int = 0) -> tuple[int, int]:
    """The version and a descriptor of the rules, for `restrict`. Paths are opened now, with the rights of now. `port` may be connected to.

    Raises OSError.
    """
    found = version()
    if not found:
        raise OSError("this kernel has no Landlock")
    files = _FIRST | (_REFER if found >= 2 else 0) | (_TRUNCATE if found >= 3 else 0) | (_IOCTL if found >= 5 else 0)
    attributes = _Ruleset(files, _TCP if found >= 4 else 0, _SCOPES if found >= SIGNALS_FROM else 0)
    size = 24 if found >= SIGNALS_FROM else 16 if found >= 4 else 8
    ruleset = kernel.syscall(_CREATE, ctypes.byref(attributes), ctypes.c_size_t(size), 0)
    for path in readable:
        _admit(ruleset, path, files & _READING)
    for path in writable:
        _admit(ruleset, path, files)
    if port and found >= 4:
        rule = _Port(_CONNECT_TCP, port)
        kernel.syscall(_ADD_RULE, ruleset, _NET_PORT, ctypes.byref(rule), 0)
    return found, ruleset


def restrict(ruleset: int) -> None:
    """Close everything else, for good; `no_new_privs` must be on. Raises OSError."""
    kernel.syscall(_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _admit(ruleset: int, path: str, access: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            access &= _OF_FILES
        rule = _PathBeneath(access, place)
        kernel.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(place)
