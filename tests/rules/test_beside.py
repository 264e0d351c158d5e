"""Commands side by side: what each says is whole and in order, a failure of any is one of all, and told to stop, none goes on."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rules.source_tree import ROOT

BESIDE = (sys.executable, str(ROOT / ".ci/beside.py"))
WAITS = "touch {0}.begun; sleep 60 & echo $! > {0}.child; wait"


def beside(*commands: str) -> tuple[int, str]:
    words = [word for command in commands for word in ("--", "sh", "-c", command)]
    done = subprocess.run([*BESIDE, *words[1:]], capture_output=True, text=True, check=False, timeout=30)
    return done.returncode, done.stdout


def is_gone(pid: int) -> bool:
    """Whether a process has ended, read or not."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_what_each_says_is_whole_and_comes_in_order() -> None:
    assert beside("sleep 0.3; echo first", "echo one; sleep 0.1; echo two >&2", "echo three") == (0, "first\none\ntwo\nthree\n")


@pytest.mark.parametrize(("commands", "status"), [(("exit 3", "true"), 3), (("true", "exit 4"), 4), (("true", "kill -9 $$"), 137)])
def test_a_failure_of_any_is_one_of_all(commands: tuple[str, ...], status: int) -> None:
    assert beside(*commands)[0] == status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_ends_all_that_it_has_started(tmp_path: Path, number: signal.Signals) -> None:
    behind = tmp_path / "behind"
    words = ["exec sleep 60", WAITS.format(behind)]
    commands = [word for command in words for word in ("--", "sh", "-c", command)]
    process = subprocess.Popen([*BESIDE, *commands[1:]], stdout=subprocess.DEVNULL)
    child = tmp_path / "behind.child"
    end = time.monotonic() + 20
    while not (child.exists() and child.read_text().strip()):
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(20) == 130
    assert is_gone(int(child.read_text()))
