"""What the kernel tells of processes: alive, since when, how large, who listens where.

Must not know Hansa's processes. Warning: a pid alone names nobody, it is reused; a pid with its start tick does. Without /proc
(not Linux) the tick is 0 and the rest is unknown.
"""

import asyncio
import contextlib
import os
from pathlib import Path

from hansa import clock

PROC = Path("/proc")
POLL_SECONDS = 0.02


def start_tick(pid: int) -> int | None:
    """When the process was started, in clock ticks since boot; None when it is gone or a zombie."""
    if pid <= 0:
        return None
    if not PROC.is_dir():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            return 0
        return 0
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def is_alive(pid: int, tick: int) -> bool:
    """Whether the very process that was started at `tick` still runs."""
    return start_tick(pid) == tick


async def wait_gone(pid: int, tick: int, *, seconds: float) -> bool:
    """Wait until that process is gone; False when it still runs after `seconds`."""
    deadline = clock.monotonic() + seconds
    while is_alive(pid, tick):
        if clock.monotonic() >= deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


def send(pid: int, tick: int, *, signal: int) -> None:
    """Signal that very process, if it still runs."""
    if is_alive(pid, tick):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal)


def rss_bytes(pid: int) -> int:
    """Resident memory; 0 when unknown."""
    try:
        pages = int((PROC / str(pid) / "statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def working_in(folder: Path, *, program: str) -> list[int]:
    """Pids of running processes called `program` that belong to `folder`: by working directory, or by command line where that is hidden."""
    wanted = str(folder.resolve())
    found: list[int] = []
    for pid in _pids():
        if start_tick(pid) is None or _name(pid) != program:
            continue
        try:
            belongs = str((PROC / str(pid) / "cwd").readlink()) == wanted
        except PermissionError:
            belongs = wanted in _command_line(pid)
        except OSError:
            continue
        if belongs:
            found.append(pid)
    return found


def listener(port: int) -> int | None:
    """Pid of the process that listens on a TCP port; None when unknown or another user's."""
    sockets = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _listening(table, port)}
    if not sockets:
        return None
    for pid in _pids():
        with contextlib.suppress(OSError):
            for descriptor in (PROC / str(pid) / "fd").iterdir():
                if str(descriptor.readlink()) in sockets:
                    return pid
    return None


def command(pid: int) -> str:
    """The command line, for people."""
    return " ".join(_command_line(pid)) or _name(pid)


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()] if PROC.is_dir() else []


def _stat(pid: int) -> list[str]:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    # The name stands in parentheses and may itself hold blanks and parentheses.
    return text[text.rfind(")") + 2 :].split()


def _name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def _command_line(pid: int) -> list[str]:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []


def _listening(table: str, port: int) -> list[str]:
    try:
        lines = (PROC / "net" / table).read_text().splitlines()[1:]
    except OSError:
        return []
    rows = [line.split() for line in lines]
    return [row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port]
