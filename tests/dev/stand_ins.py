"""Stand-ins for Hansa's own processes, so that what is tested here is what runs them; and ways to run as somebody else and to wait."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from hansa import clock
from hansa.dev import processes
from hansa.dev.up import Commands

NOBODY = 65534

DUMP = "import json, os, sys; open(os.path.join(os.environ['HANSA_DATA_DIR'], 'seen-{0}.json'), 'w').write(json.dumps(dict(os.environ)))\n"

SERVE = (
    DUMP.format("serve")
    + """
import socket
listener = socket.socket(fileno=int(os.environ["HANSA_SERVER_FD"]))
while True:
    connection, _ = listener.accept()
    line = connection.recv(4096).split(b"\\r\\n")[0]
    code = b"200 OK" if line == b"GET /readyz HTTP/1.1" else b"404 Not Found"
    body = str(os.getpid()).encode()
    connection.sendall(b"HTTP/1.1 " + code + b"\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
    connection.close()
"""
)
WORKER = DUMP.format("worker") + "\nimport time\nwhile True: time.sleep(60)\n"
MIGRATE = DUMP.format("migrate")


def python(code: str) -> tuple[str, ...]:
    """The command line that runs this code."""
    return (sys.executable, "-c", code)


def commands(*, migrate: str = MIGRATE, serve: str = SERVE, worker: str = WORKER) -> Commands:
    """Stand-ins for all three."""
    return Commands(migrate=python(migrate), serve=python(serve), worker=python(worker))


def environ(**changes: str) -> dict[str, str]:
    """Our environment without settings of Hansa's, and `changes`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HANSA_")} | changes


def unprivileged(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command line as a user that is not root. It may read everything (the interpreter may lie in root's home) and write nothing."""
    if os.geteuid() != 0:
        return argv
    become = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    return ("setpriv", *become, *argv)


def plain_environ(home: Path) -> Mapping[str, str]:
    """Our environment for another user, whose home is `home`."""
    return environ(HOME=str(home), PYTHONDONTWRITEBYTECODE="1")


async def eventually(true: Callable[[], bool] | Callable[[], Awaitable[bool]], *, seconds: float = 15.0) -> None:
    """Wait until it is true, or fail."""
    deadline = clock.monotonic() + seconds
    while True:
        answer = true()
        if (answer if isinstance(answer, bool) else await answer) is True:
            return
        assert clock.monotonic() < deadline, f"not within {seconds} s: {true}"
        await asyncio.sleep(0.02)


async def all_gone(pids: Iterable[int]) -> None:
    """Wait until none of them runs, or fail."""
    left = [pid for pid in pids if pid]
    await eventually(lambda: all(processes.start_tick(pid) is None for pid in left))
