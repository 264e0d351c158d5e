"""The way into the cage: from a process that was forked for it to the program that is run there.

Three processes: the first leaves the namespaces, the second is the first of a namespace of processes and clears up after the third,
which gives up what it may do and becomes the program. Standard library only. Warning: what is closed here stays closed, so order counts.
"""

import contextlib
import fcntl
import json
import os
import resource
import socket
import struct
from typing import Any, NoReturn

from hansa.tools.cage import kernel, landlock, rootfs, seccomp
from hansa.tools.cage.order import (
    LANDLOCK,
    LIMITS,
    MOUNTS,
    NETWORK,
    NO_NEW_PRIVILEGES,
    PROCESSES,
    SECCOMP,
    USER,
    WORKSPACE,
    Order,
    guarantees,
)

NOBODY = 65534
"""Who a program is outside when Hansa runs as root."""
_SOMEBODY = 1000
"""Who it is inside, where there is a namespace of users."""
_OPEN_FILES = 64
_NICENESS = 3
_FIRST_TO_DIE = "1000"

_BROKE = 126
_SET_FLAGS, _UP_AND_RUNNING = 0x8914, 0x41


class Cage:
    """What has been closed so far, on the way in."""

    def __init__(self, order: Order, report: int) -> None:
        self._order = order
        self._report = report
        self._layers = list[str]()
        self._root = os.geteuid() == 0
        self._port = 0

    def enter(self) -> NoReturn:
        """Never returns: the calling process ends when the program has."""
        with _last_words(self._report):
            kernel.die_with_parent()
            os.setsid()
            os.nice(_NICENESS)
            _be_first_to_die()
            self._leave_namespaces()
            if self._order.hatch >= 0 and NETWORK in self._layers:
                self._port = _hand_out_proxy(self._order.hatch)
            second = os.fork()
            if not second:
                self._keep_house()
            for number in (0, 1, 2, self._report):  # what is read of them ends with the program
                os.close(number)
            os.waitpid(second, 0)
        os._exit(_BROKE)

    def _leave_namespaces(self) -> None:
        outer = os.geteuid(), os.getegid()
        # Root may leave all of them without one of users; it gets that last, when it is root no more.
        if not (self._root and self._leave("mount", MOUNTS)):
            if self._leave("user", USER):
                _become_somebody(outer)
                self._root = False
            self._leave("mount", MOUNTS)
        self._leave("net", NETWORK)
        self._leave("pid", PROCESSES)
        self._leave("ipc")
        self._leave("uts")

    def _leave(self, namespace: str, layer: str = "") -> bool:
        if layer in self._layers:
            return True
        if layer in self._order.without:
            return False
        try:
            kernel.unshare(namespace)
        except OSError:
            return False
        self._layers += [layer] if layer else []
        return True

    def _keep_house(self) -> None:
        """Start the program, bury the dead, and say how it ended: the end of a namespace's first process ends all in it."""
        kernel.die_with_parent()
        kernel.be_dumpable(0)
        if MOUNTS in self._layers:
            try:
                rootfs.begin()
            except OSError:
                self._layers.remove(MOUNTS)
            else:
                rootfs.furnish(self._order, processes=PROCESSES in self._layers)
        third = os.fork()
        if not third:
            with _last_words(self._report):
                self._become_the_program()
            os._exit(_BROKE)
        for number in (0, 1, 2):
            os.close(number)
        while True:
            ended, status = os.waitpid(-1, 0)
            if ended == third:
                code = os.waitstatus_to_exitcode(status)
                self._tell(status=max(code, 0), signal=max(-code, 0))
                os._exit(0)

    def _become_the_program(self) -> None:
        order = self._order
        home = WORKSPACE if MOUNTS in self._layers else order.workspace
        if LIMITS not in order.without:
            self._set_limits()
        rules = self._file_rules(home)
        if self._root:
            self._stop_being_root()
        if LIMITS in self._layers:
            self._limit_processes()
        kernel.die_with_parent()
        kernel.gain_no_privileges()
        self._layers.append(NO_NEW_PRIVILEGES)
        kernel.drop_capabilities()
        if rules is not None:
            landlock.restrict(rules[1])
            self._layers.append(f"{LANDLOCK}-{rules[0]}")
        if SECCOMP not in order.without:
            with contextlib.suppress(OSError):
                seccomp.restrict(sockets=self._port > 0)
                self._layers.append(SECCOMP)
        missing = [name for name in order.required if name not in guarantees(self._layers)]
        missing += [NETWORK] if order.hatch >= 0 and not self._port else []
        self._tell(layers=self._layers, missing=missing)
        if missing or not order.program:
            os._exit(0)
        os.chdir(home)
        os.closerange(3, self._report)
        os.closerange(self._report + 1, _OPEN_FILES)
        environment = _environment(home, self._port, own_root=MOUNTS in self._layers)
        os.execvpe(order.program[0], order.program, environment)  # noqa: S606 - no shell is asked for

    def _set_limits(self) -> None:
        bounds = self._order.bounds
        seconds = max(1, int(bounds.seconds) + 1)
        limits: dict[int, tuple[int, int]] = {
            resource.RLIMIT_CORE: (0, 0),
            resource.RLIMIT_CPU: (seconds, seconds + 1),
            resource.RLIMIT_FSIZE: (bounds.file_bytes, bounds.file_bytes),
            resource.RLIMIT_NOFILE: (_OPEN_FILES, _OPEN_FILES),
            # Address space is not memory: programs reserve more than they use. All of it together is watched from outside.
            resource.RLIMIT_AS: (2 * bounds.memory, 2 * bounds.memory),
        }
        for name, limit in limits.items():
            resource.setrlimit(name, limit)
        self._layers.append(LIMITS)

    def _limit_processes(self) -> None:
        """In a namespace of users the bound counts the processes of this cage alone, two of which are ours; else all of the user's."""
        others = 2 if USER in self._layers else _tasks_of(os.geteuid())
        most = self._order.bounds.processes + others
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))

    def _stop_being_root(self) -> None:
        """The kernel holds root to no bound of processes, so this comes before the bound."""
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        kernel.be_dumpable(1)
        if MOUNTS in self._layers and self._leave("user", USER):
            _become_somebody((NOBODY, NOBODY))

    def _file_rules(self, home: str) -> tuple[int, int] | None:
        """Opened while root still is root, who may go where nobody else may."""
        if LANDLOCK in self._order.without:
            return None
        own = MOUNTS in self._layers
        readable = ["/"] if own else self._order.readable
        writable = [home, rootfs.TEMPORARY, *rootfs.DEVICES] if own else [home, "/dev/null"]
        try:
            return landlock.prepare(readable, writable, port=self._port)
        except OSError:
            return None

    def _tell(self, **said: Any) -> None:
        os.write(self._report, json.dumps(said).encode() + b"\n")


@contextlib.contextmanager
def _last_words(report: int) -> Any:
    """What goes wrong on the way in is said in the report, and the process ends."""
    try:
        yield
    # A forked process must not go on with what its parent was doing, whatever went wrong.
    except Exception as error:
        os.write(report, json.dumps({"trouble": f"{type(error).__name__}: {error}"}).encode() + b"\n")
    finally:
        os._exit(_BROKE)


def _become_somebody(outer: tuple[int, int]) -> None:
    """In a new namespace of users: be one of them, without any power."""
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{_SOMEBODY} {outer[0]} 1"),
        ("gid_map", f"{_SOMEBODY} {outer[1]} 1"),
    ):
        with open(f"/proc/self/{file}", "w") as target:
            target.write(text)


def _be_first_to_die() -> None:
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_FIRST_TO_DIE)


def _environment(home: str, port: int, *, own_root: bool) -> dict[str, str]:
    proxy = {f"{scheme}_proxy": f"http://127.0.0.1:{port}" for scheme in ("http", "https", "HTTP", "HTTPS")} if port else {}
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": rootfs.TEMPORARY if own_root else home,
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
        **proxy,
    }


def _hand_out_proxy(hatch: int) -> int:
    """Listen on the loopback of a network of one's own, and hand the socket out; its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP_AND_RUNNING))
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(fileno=os.dup(hatch)) as outer:
        socket.send_fds(outer, [b"."], [listener.fileno()])
        return int(listener.getsockname()[1])


def _tasks_of(user: int) -> int:
    """How many processes and threads a user has; those that end meanwhile are not counted."""
    count = 0
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{entry}").st_uid == user:
                count += len(os.listdir(f"/proc/{entry}/task"))
    return count
