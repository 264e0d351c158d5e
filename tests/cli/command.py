"""The `hansa` command as people call it: a process of its own, with nothing in its environment that a test did not put there."""

import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import forkserver

SECONDS = 100


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HANSA_", "NO_COLOR", "FORCE_COLOR"))}
    return {**kept, "HANSA_API_KEY": "key-of-the-test", "COLUMNS": "120", "TERM": "xterm-256color", **more}


def hansa(*arguments: str, cwd: Path, stdin: str = "", **env: str) -> Ended:
    """Run a command to its end, from a process that has all imports already."""
    with tempfile.TemporaryDirectory(prefix="hansa-command-") as folder:
        streams = [Path(folder, name) for name in ("in", "out", "err")]
        streams[0].write_text(stdin)
        child = forkserver.shared().start(arguments, environment(**env), streams, cwd=cwd)
        try:
            status = child.wait(SECONDS)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            raise
        return Ended(status, *(stream.read_text() for stream in streams[1:]))


def program(env: Mapping[str, str]) -> list[str]:
    """What starts a command: what has it forked, unless its environment says how Python is to start."""
    return [sys.executable, "-m", "hansa"] if "PYTHONIOENCODING" in env else [str(forkserver.shared().folder / "hansa")]


def start(*arguments: str, cwd: Path, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*program(env), *arguments],
        cwd=cwd,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def on_terminal(*arguments: str, cwd: Path, answers: Sequence[tuple[str, str]] = (), **env: str) -> tuple[int, str]:
    """The exit status and all that stood on a terminal, stdout and stderr alike. `answers`: what is typed when a text stands there anew."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen([*program(env), *arguments], cwd=cwd, env=environment(**env), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen, answered, to_type = b"", 0, list(answers)
    deadline = time.monotonic() + SECONDS
    while select.select([ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
        if to_type and to_type[0][0].encode() in seen[answered:]:
            answered = len(seen)
            os.write(ours, to_type.pop(0)[1].encode())
    else:
        child.kill()
        child.wait()
        raise AssertionError(f"not at its end after {SECONDS} s; there stands {seen!r}")
    os.close(ours)
    return child.wait(SECONDS), seen.decode().replace("\r\n", "\n")
