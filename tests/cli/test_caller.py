"""What stands for a forked `hansa` is taken for it: its streams, its signals and its end are those of the command."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import forkserver
from cli.command import environment, hansa, start

PATIENCE = 20.0


@pytest.fixture
def reading(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A command that reads from a pipe for as long as that is open."""
    program = forkserver.shared().folder / "hansa"
    with subprocess.Popen(
        [program, "apply", "-f", "-"],
        cwd=tmp_path,
        env=environment(HANSA_URL="http://127.0.0.1:1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        yield child
        child.kill()


def forked(child: "subprocess.Popen[str]") -> int:
    """The process for which a child stands: the one that has its standard input."""
    pipe = os.readlink(f"/proc/{child.pid}/fd/0")
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            try:
                if int(pid) != child.pid and os.readlink(f"/proc/{pid}/fd/0") == pipe:
                    return int(pid)
            except OSError:
                continue
        time.sleep(0.02)
    raise AssertionError("nothing was forked")


def is_gone(pid: int) -> bool:
    end = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.02)
    return not Path(f"/proc/{pid}").exists()


def test_it_is_another_process_and_what_it_says_is_the_same(tmp_path: Path) -> None:
    child = start("runs", cwd=tmp_path)
    out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out, err) == hansa("runs", cwd=tmp_path)


def test_killed_it_takes_the_command_with_it(reading: "subprocess.Popen[str]") -> None:
    pid = forked(reading)
    reading.kill()
    assert is_gone(pid)


def test_a_signal_reaches_the_command_and_its_status_comes_back(reading: "subprocess.Popen[str]") -> None:
    pid = forked(reading)
    time.sleep(0.3)
    reading.send_signal(signal.SIGINT)
    assert reading.wait(PATIENCE) == 130
    assert is_gone(pid)


def test_a_command_that_is_killed_ends_what_stands_for_it_in_the_same_way(reading: "subprocess.Popen[str]") -> None:
    os.kill(forked(reading), signal.SIGKILL)
    assert reading.wait(PATIENCE) == -signal.SIGKILL
