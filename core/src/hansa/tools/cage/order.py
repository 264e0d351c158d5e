"""What is run in a cage, within which bounds, and what came of it: the words that a worker and its launcher exchange as JSON.

Standard library only: the launcher starts with every tool call and loads nothing else.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

LIMITS = "limits"
NO_NEW_PRIVILEGES = "no-new-privileges"
USER = "user-namespace"
MOUNTS = "mount-namespace"
NETWORK = "network-namespace"
PROCESSES = "pid-namespace"
LANDLOCK = "landlock"
SECCOMP = "seccomp"
LAYERS = (LIMITS, NO_NEW_PRIVILEGES, USER, MOUNTS, NETWORK, PROCESSES, LANDLOCK, SECCOMP)
"""All there are; what a machine does not have is left out. Landlock is reported with its version: `landlock-7`."""

SIGNALS_FROM = 6
"""The version of Landlock from which on it keeps signals inside."""

GUARANTEES = ("files", "network", "processes", "syscalls")
"""What layers are for, and what an operator can demand."""

WORKSPACE = "/work"
"""Where the workspace is in a cage that has a file system of its own."""


class Bounds(NamedTuple):
    """What one caged call may use, all its processes together unless said otherwise. Sizes in bytes."""

    seconds: float = 30.0
    memory: int = 512 * 1024 * 1024
    processes: int = 32
    file_bytes: int = 64 * 1024 * 1024
    disk_bytes: int = 256 * 1024 * 1024
    output_bytes: int = 128 * 1024


class Order(NamedTuple):
    """One call. `program` is an argument list with a whole path first. `without`: layers to leave out, for tests.

    `hatch`: the descriptor over which the socket of a proxy is handed out; -1: the program has no network at all.
    With `program` empty nothing is run: the answer says which layers hold on this machine.
    """

    program: list[str]
    workspace: str
    readable: list[str]
    stdin: str
    bounds: Bounds
    required: list[str]
    without: list[str]
    hatch: int = -1

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> "Order":
        """From its fields as JSON has them."""
        known: dict[str, Any] = {**fields, "bounds": Bounds(*fields["bounds"])}
        return cls(**known)


class Ended(NamedTuple):
    """What came of it. `stopped`: what it had too much of (`time`, `memory`, `processes`, `disk`, `output`), `canceled`, or empty.

    `trouble` says why nothing was run.
    """

    layers: list[str]
    trouble: str
    status: int
    signal: int
    stopped: str
    stdout: str
    stderr: str
    seconds: float


def guarantees(layers: Iterable[str]) -> list[str]:
    """What holds, by the layers that do."""
    found = set(layers)
    landlock = max((int(layer.rpartition("-")[2]) for layer in found if layer.startswith(f"{LANDLOCK}-")), default=0)
    holds = {
        "files": MOUNTS in found or landlock > 0,
        # A socket that is a file is on no network: a file system without it, or no sockets at all.
        "network": SECCOMP in found or {NETWORK, MOUNTS} <= found,
        "processes": PROCESSES in found or landlock >= SIGNALS_FROM,
        "syscalls": SECCOMP in found,
    }
    return [name for name in GUARANTEES if holds[name]]
