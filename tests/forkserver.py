"""Processes of Hansa forked from one that has imported everything, as most tests start them: a worker's imports take a second of a core.

They are processes of their own in all else: killed, frozen and waited for by pid. One whose environment names a library to be
loaded before Python (`LD_PRELOAD`) can't come from a fork: start that with `subprocess`.
"""

import atexit
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from hansa import cli
from hansa.__main__ import main
from hansa.egress.client import system_trust

NOTHING = Path(os.devnull)
POLL_SECONDS = 0.02
LATER = ("anyio._backends._asyncio", "litestar._kwargs", "uvicorn.lifespan.on")
"""What those who need it import when they first do."""


class Child:
    """A forked process, with what of `subprocess.Popen` is asked of it."""

    def __init__(self, server: "ForkServer", pid: int) -> None:
        self.pid = pid
        self._server = server
        self._status: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self._status is None:
            self._status = self._server.ask({"poll": self.pid})
        return self._status

    def wait(self, timeout: float) -> int:
        """The exit status; `subprocess.TimeoutExpired` if there is none in time."""
        end = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() >= end:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(POLL_SECONDS)
        return status

    def send_signal(self, number: int) -> None:
        """A signal, unless it has ended: until its status was asked for, no other process has its pid."""
        if self.poll() is None:
            os.kill(self.pid, number)


class ForkServer:
    """The process that forks. Use `shared`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        atexit.register(self._process.communicate)

    def start(self, arguments: Sequence[str], env: dict[str, str], streams: Sequence[Path], *, cwd: Path | None = None) -> Child:
        """Run `hansa ARGUMENTS` with exactly this environment. `streams`: files for stdin, stdout and stderr; to the last two is added."""
        return Child(self, self.ask({"start": list(arguments), "env": env, "streams": [*map(str, streams)], "cwd": str(cwd or Path.cwd())}))

    def ask(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, f"the fork server has ended: {self._process.poll()}"
        return json.loads(answer)


@cache
def shared() -> ForkServer:
    """The one fork server of this process, started when it is first wanted."""
    return ForkServer()


def serve() -> None:
    """Answer questions until nobody asks any more. Returns in each child, as the process that it is to be."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who are served
    for line in iter(sys.stdin.readline, ""):
        question = json.loads(line)
        answer = _status(question["poll"]) if "poll" in question else os.fork()
        if answer == 0 and "start" in question:
            _become(question["start"], question["env"], question["streams"], question["cwd"])
            return
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    sys.exit(0)


def _status(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _become(arguments: list[str], env: dict[str, str], streams: list[str], cwd: str) -> None:
    for number, path in enumerate(streams):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0, closefd=False)  # the old one may have read ahead
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["hansa", *arguments]
    sys.path[1:1] = [entry for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry and entry not in sys.path]


def import_all() -> None:
    """What every such process would load: the commands, the plugins that are installed here, and what the system trusts."""
    for module in iter_modules(cli.__path__, "hansa.cli."):
        import_module(module.name)
    for point in entry_points(group="hansa.plugins"):
        point.load()
    for name in LATER:
        import_module(name)
    system_trust()


def run() -> None:
    """Be the process to its end. Where that is an orderly one, nothing is taken apart: it would copy every page of what was imported, which
    takes half a second of a core.
    """
    try:
        main()
    except SystemExit as ended:
        if not isinstance(ended.code, int):
            raise
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
        sys.stdout.flush()  # of a reader that has gone away, Python says it
        sys.stderr.flush()
        os._exit(ended.code)


if __name__ == "__main__":
    import_all()
    gc.collect()
    gc.freeze()
    serve()
    run()
