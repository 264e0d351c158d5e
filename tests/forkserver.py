"""Processes of Hansa forked from one that has imported everything, as most tests start them: a worker's imports take a second of a core.

They are processes of their own in all else: killed, frozen and waited for by pid. One whose environment names a library to be
loaded before Python (`LD_PRELOAD`), or an encoding, can't come from a fork: start that with `subprocess`.

Where something else than a test starts `hansa` (a shell, `hansa up`), a program stands for it that has it forked: see `ForkServer.folder`.
"""

import atexit
import fcntl
import gc
import json
import os
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Literal, TextIO

from hansa import cli
from hansa.__main__ import main
from hansa.egress.client import system_trust

NOTHING = Path(os.devnull)
POLL_SECONDS = 0.02
QUESTION_BYTES, DESCRIPTORS = 1 << 20, 64
CALL = f"exec {shlex.quote(sys.executable)} -SsE {shlex.quote(str(Path(__file__).with_name('caller.py')))} "
HANSA = f"""#!/bin/sh
{CALL}SERVER "$@"
"""
PYTHON = f"""#!/bin/sh
if [ "$1 $2" = "-m hansa" ]; then
  shift 2
  {CALL}SERVER "$@"
fi
exec {shlex.quote(sys.executable)} "$@"
"""
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
        self.folder = Path(tempfile.mkdtemp(prefix="hansa-forks-"))
        """Has the program `hansa`, which is `hansa` forked."""
        command = [sys.executable, __file__, str(self.folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        atexit.register(self._end)
        self.ask({"poll": None})

    def _end(self) -> None:
        self._process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)

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


class Desk:
    """Where questions are answered: those of the test process, one a line, and the calls of the programs in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._lines = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lines.bind(str(folder / "server"))
        self._lines.listen(64)
        self._called_for = set[int]()
        self._asked = selectors.DefaultSelector()
        self._asked.register(sys.stdin, selectors.EVENT_READ, self._read)
        self._asked.register(self._lines, selectors.EVENT_READ, self._called)

    def serve(self) -> None:
        """Answer until nobody asks any more. Returns in each child, as the process that it is to be."""
        while True:
            for key, _ in self._asked.select():
                # What was answered before, in the same turn, may have ended this.
                if self._asked.get_map().get(key.fd) is key and key.data():
                    return

    def _read(self) -> bool:
        line = sys.stdin.readline()
        if not line:
            for pid in self._called_for:  # what stands for them would be told nothing any more
                os.kill(pid, signal.SIGKILL)
            sys.exit(0)
        question = json.loads(line)
        answer = _status(question["poll"]) if "poll" in question else os.fork()
        if answer == 0 and "start" in question:
            self._close()
            _become(question, dict(enumerate(_opened(question["streams"]))))
            return True
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        return False

    def _called(self) -> bool:
        line, _ = self._lines.accept()
        message, descriptors, _, _ = socket.recv_fds(line, QUESTION_BYTES, DESCRIPTORS)
        if not message:  # killed before it could ask
            line.close()
            return False
        question = json.loads(message)
        pid = os.fork()
        if pid == 0:
            line.close()
            self._close()
            _become(question, dict(zip(question["numbers"], descriptors, strict=True)))
            return True
        for each in descriptors:
            os.close(each)
        self._called_for.add(pid)
        ended = os.pidfd_open(pid)
        self._asked.register(ended, selectors.EVENT_READ, lambda: self._ended(line, ended, pid))
        self._asked.register(line, selectors.EVENT_READ, lambda: self._left(line, ended, pid))
        with suppress(OSError):
            line.send(b"%d" % pid)
        return False

    def _ended(self, line: socket.socket, ended: int, pid: int) -> bool:
        with suppress(OSError):
            line.send(b"%d" % (_status(pid) or 0))
        self._called_for.remove(pid)
        for each in (line, ended):
            self._asked.unregister(each)
        os.close(ended)
        line.close()
        return False

    def _left(self, line: socket.socket, ended: int, pid: int) -> bool:
        """What stood for it was killed, and so is it."""
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return self._ended(line, ended, pid)

    def _close(self) -> None:
        """In a child: nothing of this is its own."""
        for key in list(self._asked.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            elif isinstance(key.fileobj, int):
                os.close(key.fileobj)
        self._asked.close()


def _status(pid: int | None) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG) if pid else (0, 0)
    return os.waitstatus_to_exitcode(status) if found else None


def _opened(streams: Sequence[str]) -> list[int]:
    modes = [os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT | os.O_APPEND] * 2]
    return [os.open(path, mode, 0o644) for path, mode in zip(streams, modes, strict=True)]


def _become(question: Mapping[str, Any], descriptors: Mapping[int, int]) -> None:
    """`descriptors`: number -> what is to be open under it."""
    moved = {number: fcntl.fcntl(given, fcntl.F_DUPFD, DESCRIPTORS) for number, given in descriptors.items()}
    for given in descriptors.values():
        os.close(given)
    for number in {0, 1, 2} - moved.keys():
        os.close(number)
    for number, given in moved.items():
        os.dup2(given, number)
        os.close(given)
    # The old ones may have read ahead, and know nothing of what is closed or a terminal.
    sys.stdin = _text(0, "r") if 0 in moved else None
    sys.stdout = _text(1, "w") if 1 in moved else None
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False) if 2 in moved else None
    for number in question.get("deaf", ()):
        signal.signal(number, signal.SIG_IGN)
    if signal.SIGINT not in question.get("deaf", ()):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    env: dict[str, str] = question["env"]
    os.chdir(question["cwd"])
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["hansa", *question["start"]]
    sys.path[1:1] = [entry for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry and entry not in sys.path]


def _text(number: int, mode: Literal["r", "w"]) -> TextIO:
    return os.fdopen(number, mode, closefd=False)


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
        for stream in (sys.stdout, sys.stderr):  # of a reader that has gone away, Python says it
            if stream is not None:
                stream.flush()
        os._exit(ended.code)


def make_programs(folder: Path) -> None:
    """What stands for forked processes, in `folder`. Those that `hansa up` starts are forked as well."""
    for name, text in (("hansa", HANSA), ("python-m-hansa", PYTHON)):
        program = folder / name
        program.write_text(text.replace("SERVER", shlex.quote(str(folder / "server"))))
        program.chmod(0o755)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    make_programs(place)
    own, sys.executable = sys.executable, str(place / "python-m-hansa")
    import_all()
    sys.executable = own
    gc.collect()
    gc.freeze()
    Desk(place).serve()
    run()
