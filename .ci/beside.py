"""Runs a command, and others beside it at a low priority; what those say comes when the first has ended, one after the other.

    beside.py COMMAND... -- COMMAND... [-- COMMAND...]

The exit status is the first one that is not 0. Told to stop (Ctrl-C, SIGTERM), it ends all of them. Standard library only.
"""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from itertools import groupby
from types import FrameType
from typing import IO

PRIORITY = ("nice", "-n", "10")
STOPPING_SECONDS = 20.0
INTERRUPTED = 130


def run(first: list[str], others: list[list[str]]) -> int:
    """The exit status of all."""
    with ExitStack() as stack:
        behind = [_behind(command, stack) for command in others]
        front = subprocess.Popen(first)
        stack.callback(_end, front, front.pid)
        statuses = [front.wait()]
        for process, output in behind:
            statuses.append(process.wait())
            output.seek(0)
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
    return next((128 - status if status < 0 else status for status in statuses if status), 0)


def _behind(command: list[str], stack: ExitStack) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """In a group of its own: a Ctrl-C in the terminal is for us, and we end all of it."""
    output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the stack
    stack.callback(output.close)
    words = [*PRIORITY, *command]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, process_group=0)
    stack.callback(_end, process, -process.pid)
    return process, output


def _end(process: subprocess.Popen[bytes], target: int) -> None:
    """End it if it still runs; `target`: its pid, or that of its group with a minus."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.kill(target, signal.SIGTERM)
        try:
            process.wait(STOPPING_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.kill(target, signal.SIGKILL)
            process.wait()


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    first, *others = (list(words) for between, words in groupby(arguments, lambda word: word == "--") if not between)
    signal.signal(signal.SIGTERM, _stop)
    try:
        return run(first, others)
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
