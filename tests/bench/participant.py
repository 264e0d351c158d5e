"""A participant of a comparison as the bench sees it: a process that measures itself when it is told to. See `closed_loop`."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

TESTS = Path(__file__).parents[1]


class Participant:
    """A running participant. Use `take_part`."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def measure(self, operation: str, *, clients: int, seconds: float) -> dict[str, float]:
        """What `closed_loop` says of an operation."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"operation": operation, "clients": clients, "seconds": seconds}) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line that is an answer; a library may print others."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise AssertionError(f"{self._process.args} ended:\n{self._log.read_text()[-4000:]}")


@contextmanager
def program(
    name: str, environ: Mapping[str, str], *, stderr: IO[bytes], python: Path = Path(sys.executable)
) -> Iterator[subprocess.Popen[str]]:
    """Run a program of `peers/`; its input and output are pipes."""
    env = {**os.environ, **environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))}
    command = [str(python), str(TESTS / "bench/peers" / name)]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


@contextmanager
def take_part(name: str, environ: Mapping[str, str], log: Path, *, python: Path = Path(sys.executable)) -> Iterator[Participant]:
    """A program of `peers/` that measures itself, ready; it ends with its input."""
    with log.open("ab") as sink, program(name, environ, stderr=sink, python=python) as process:
        participant = Participant(process, log)
        participant.answer()
        yield participant
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)
