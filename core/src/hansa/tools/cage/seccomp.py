"""seccomp: system calls that no tool needs and that attack kernels, neighbours or networks are answered with "not permitted".

A list of what is refused, not of what is allowed: programs are strangers, and libraries grow. Files and processes are guarded by other
layers; this one closes sockets, namespaces, mounts, debugging, keys, memory without an owner and kernel doors. Linux only; standard
library only.
"""

import ctypes
import platform
import struct

from hansa.tools.cage import kernel

_SET_SECCOMP, _FILTER = 22, 2
_LOAD, _JUMP_EQUAL, _JUMP_MORE, _JUMP_ANY, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_ALLOW = 0x7FFF0000
_NOT_PERMITTED, _NO_SUCH_CALL = 0x00050000 | 1, 0x00050000 | 38
_X32 = 0x40000000
_AF_INET = 2

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_PRCTL, _SET_DUMPABLE = {"x86_64": 157, "aarch64": 167}, 4
"""Hides from the user's own processes which files a program holds, and so from who watches it."""
_REFUSED = {
    # (x86_64, aarch64); a call that one of them does not have is -1
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "finit_module": (313, 273),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, -1),
    "iopl": (172, -1),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    # Memory that belongs to no process is counted for none.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "mount": (165, 40),
    "msgget": (68, 186),
    "move_mount": (429, 429),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "semget": (64, 190),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "shmget": (29, 194),
    "socket": (41, 198),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
}


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def restrict(*, sockets: bool) -> None:
    """Refuse the listed calls from here on, for good; `no_new_privs` must be on. `sockets`: those of IPv4 may be made.

    Raises OSError, also on processors without a list.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise OSError(f"no numbers of system calls are known for {machine}")
    code = b"".join(_instructions(machine, sockets=sockets))
    kept = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.cast(kept, ctypes.c_void_p))
    kernel.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0)


def _instructions(machine: str, *, sockets: bool) -> list[bytes]:
    place = list(_ARCHITECTURES).index(machine)
    code = [
        _statement(_LOAD, _ARCHITECTURE_AT),
        *_answer_unless(_JUMP_EQUAL, _ARCHITECTURES[machine], _NOT_PERMITTED),
        _statement(_LOAD, _NUMBER_AT),
        *_answer_if(_JUMP_MORE, _X32, _NOT_PERMITTED),
        # A library that can't use it takes clone, whose flags a filter can read.
        *_answer_if(_JUMP_EQUAL, _CLONE3, _NO_SUCH_CALL),
    ]
    for name, numbers in _REFUSED.items():
        if name == "socket" and sockets:
            code += _by_first_argument(numbers[place], _answer_unless(_JUMP_EQUAL, _AF_INET, _NOT_PERMITTED))
        elif numbers[place] >= 0:
            code += _answer_if(_JUMP_EQUAL, numbers[place], _NOT_PERMITTED)
    code += _by_first_argument(_PRCTL[machine], _answer_if(_JUMP_EQUAL, _SET_DUMPABLE, _NOT_PERMITTED))
    any_namespace = sum(kernel.NEW_NAMESPACE.values()) | 0x02000000  # and that of control groups
    return [
        *code,
        *_answer_unless(_JUMP_EQUAL, _CLONE[machine], _ALLOW),
        _statement(_LOAD, _FIRST_ARGUMENT_AT),
        *_answer_if(_JUMP_ANY, any_namespace, _NOT_PERMITTED),
        _statement(_RETURN, _ALLOW),
    ]


def _by_first_argument(number: int, judge: tuple[bytes, bytes]) -> list[bytes]:
    """Allow a call, unless what looks at its first argument answers otherwise."""
    judged = [_statement(_LOAD, _FIRST_ARGUMENT_AT), *judge, _statement(_RETURN, _ALLOW)]
    return [_statement(_JUMP_EQUAL, number, 0, len(judged)), *judged]


def _answer_if(jump: int, value: int, answer: int) -> tuple[bytes, bytes]:
    return _statement(jump, value, 0, 1), _statement(_RETURN, answer)


def _answer_unless(jump: int, value: int, answer: int) -> tuple[bytes, bytes]:
    return _statement(jump, value, 1, 0), _statement(_RETURN, answer)


def _statement(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
