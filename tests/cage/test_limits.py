"""What a caged program has too much of ends it, all of it, and nothing else."""

import asyncio
import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from cage.conftest import SMALL, Launch, narrow, python_for_all, readable
from hansa.errors import Misconfigured
from hansa.tools.cage.order import LANDLOCK, MOUNTS, NETWORK, PROCESSES, USER, Order
from hansa.tools.cage.service import Cages, Narrower
from hansa_sdk import Caged, ToolFailed

NO_SPACES = (USER, MOUNTS, NETWORK, PROCESSES)
EVERYWHERE = pytest.mark.parametrize("without", [(), NO_SPACES], ids=("namespaces", "no namespaces"))


def running(mark: str) -> list[int]:
    """Processes that have a mark among their arguments."""
    found: list[int] = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark.encode() in Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0"):
                found.append(int(entry))
        except OSError:
            continue
    return found


def until(look: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not look():
        assert time.monotonic() < end
        time.sleep(0.02)


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


@EVERYWHERE
def test_at_the_deadline_all_is_killed_also_what_became_a_daemon_or_sleeps_stopped(
    launch: Launch, workspace: Path, without: tuple[str, ...]
) -> None:
    mark = f"3{uuid.uuid4().int % 10**9}"
    deaf = f"(setsid sh -c 'trap \"\" TERM HUP INT; sleep {mark}' </dev/null >/dev/null 2>&1 &)"
    script = f"setsid sleep {mark} & {deaf}; kill -STOP $$; sleep {mark}"
    ended = launch.run(shell(script), workspace, bounds=SMALL._replace(seconds=0.5), without=without)
    assert (ended.stopped, running(mark)) == ("time", [])


@EVERYWHERE
def test_what_is_left_behind_at_the_end_is_killed(launch: Launch, workspace: Path, without: tuple[str, ...]) -> None:
    mark = f"4{uuid.uuid4().int % 10**9}"
    ended = launch.run(shell(f"(setsid sleep {mark} &) ; echo done"), workspace, without=without)
    assert (ended.stopped, ended.status, ended.stdout, running(mark)) == ("", 0, "done\n", [])
    assert ended.seconds < 15


def test_a_status_and_a_signal_are_told_apart(launch: Launch, workspace: Path) -> None:
    assert launch.run(shell("exit 137"), workspace).status == 137
    assert launch.run(shell("kill -9 $$"), workspace).signal == signal.SIGKILL
    assert launch.run(shell("cat nothing >&2"), workspace)[2:5] == (1, 0, "")


@EVERYWHERE
def test_a_bomb_of_processes_stays_small(launch: Launch, workspace: Path, without: tuple[str, ...]) -> None:
    mark = f"5{uuid.uuid4().int % 10**9}"
    bomb = f"bomb() {{ bomb & bomb; sleep {mark}; }}; bomb 2>/dev/null"
    ended = launch.run(shell(bomb), workspace, bounds=SMALL._replace(seconds=1.0, processes=16), without=without)
    assert ended.stopped in ("time", "") or ended.status
    assert running(mark) == []


def test_memory_of_many_processes_together_is_bounded(workspace: Path) -> None:
    script = "for n in 1 2 3 4 5 6; do head -c 60m /dev/zero | tail -c 60m | sleep 9 & done; sleep 9"
    ended = Launch("ordinary").run(shell(script), workspace, bounds=SMALL._replace(memory=128 << 20))
    assert ended.stopped == "memory"


def test_many_files_together_are_bounded(workspace: Path) -> None:
    script = "n=0; while true; do head -c 4m /dev/zero > f$n; n=$((n+1)); sleep 0.01; done"
    ended = Launch("ordinary").run(shell(script), workspace, bounds=SMALL._replace(disk_bytes=16 << 20))
    assert ended.stopped == "disk"
    assert sum(file.stat().st_size for file in workspace.iterdir()) < 1 << 30


NAMELESS = """
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.prctl(4, 0)
for number in range(20):
    file = os.open(f"f{number}", os.O_RDWR | os.O_CREAT)
    os.unlink(f"f{number}")
    os.write(file, bytes(%d << 12))
    if %d:
        assert libc.mmap(None, ctypes.c_size_t(4096), 3, 1, file, ctypes.c_long(0)) != -1
        os.close(file)
print("all are held", flush=True)
time.sleep(1)
"""


@EVERYWHERE
@pytest.mark.parametrize("mapped", [False, True], ids=("open", "mapped"))
def test_files_without_a_name_count_while_they_are_held(workspace: Path, without: tuple[str, ...], *, mapped: bool) -> None:
    for pages, stopped in ((1024, "disk"), (1, "disk" if mapped else "")):  # how much there is of a mapped one can't be seen
        program = [python_for_all(), "-I", "-S", "-c", NAMELESS % (pages, mapped)]
        ended = Launch("ordinary").run(program, workspace, bounds=SMALL._replace(disk_bytes=32 << 20), without=without)
        assert (ended.stopped, ended.trouble) == (stopped, ""), ended


def test_files_nobody_may_look_at_count_as_too_much(workspace: Path) -> None:
    ended = Launch("ordinary").run(shell("mkdir hidden; chmod 0 hidden; sleep 9"), workspace, bounds=SMALL._replace(seconds=5.0))
    assert ended.stopped == "disk"


def test_endless_output_is_cut_and_its_writer_killed(launch: Launch, workspace: Path) -> None:
    ended = launch.run(shell("yes; sleep 9"), workspace, bounds=SMALL._replace(output_bytes=1000))
    assert (ended.stopped, len(ended.stdout)) == ("output", 1000)
    assert launch.run(shell("head -c 1000 /dev/zero"), workspace, bounds=SMALL._replace(output_bytes=1000)).stopped == ""


def test_a_program_can_write_no_report_of_its_own(launch: Launch, workspace: Path) -> None:
    script = """for fd in 3 4 5 6 7 8 9; do echo '{"status": 0, "layers": ["all"]}' >&$fd; done 2>/dev/null; ls /proc/self/fd; exit 7"""
    ended = launch.run(shell(script), workspace)
    assert (ended.status, "all" in ended.layers) == (7, False)
    assert ended.stdout.split() == ["0", "1", "2", "3"]  # the last one is of `ls`


@EVERYWHERE
def test_with_its_worker_a_cage_ends(launch: Launch, workspace: Path, without: tuple[str, ...]) -> None:
    mark = f"6{uuid.uuid4().int % 10**9}"
    if launch.user == "ordinary":
        launch.run([], workspace)  # makes the workspace its own
    order = Order(shell(f"(setsid sleep {mark} &); sleep {mark}"), str(workspace), readable(), "", SMALL, [], list(without))
    launcher = subprocess.Popen(launch.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={})
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    launcher.stdin.write(json.dumps(order._asdict()).encode() + b"\n")
    launcher.stdin.flush()
    until(lambda: len(running(mark)) == 2)
    launcher.stdin.close()
    assert json.loads(launcher.stdout.read())["stopped"] == "canceled"
    launcher.wait(10)
    launcher.stdout.close()
    assert running(mark) == []


def test_with_its_launcher_a_cage_ends(launch: Launch, workspace: Path) -> None:
    mark = f"7{uuid.uuid4().int % 10**9}"
    if launch.user == "ordinary":
        launch.run([], workspace)
    order = Order(shell(f"(setsid sleep {mark} &); sleep {mark}"), str(workspace), readable(), "", SMALL, [], [])
    launcher = subprocess.Popen(launch.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={})
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    launcher.stdin.write(json.dumps(order._asdict()).encode() + b"\n")
    launcher.stdin.flush()
    until(lambda: len(running(mark)) == 2)
    launcher.kill()
    launcher.wait(10)
    launcher.stdin.close()
    launcher.stdout.close()
    until(lambda: running(mark) == [])


async def ran(cages: Cages, workspace: Path, *program: str, stdin: str = "", narrower: Narrower | None = None) -> Caged:
    return await cages.run(program, workspace, stdin=stdin, narrower=narrower or Narrower())


async def test_a_worker_runs_programs_and_is_told_what_came_of_them(cages: Cages, workspace: Path) -> None:
    caged = await ran(cages, workspace, cages.python, "-I", "-c", "import sys; print(sys.stdin.read()[::-1]); sys.exit(3)", stdin="äbc")
    assert (caged.status, caged.signal, caged.stopped, caged.stdout, caged.stderr) == (3, 0, "", "cbä\n", "")


async def test_a_hog_leaves_its_neighbours_alone(cages: Cages, workspace: Path) -> None:
    neighbour, hog = workspace / "neighbour", workspace / "hog"
    neighbour.mkdir()
    hog.mkdir()
    greedy = "os.fork(); x.append(bytearray(1 << 24)); open(f'f{os.getpid()}', 'ab').write(bytes(1 << 20))"
    bomb = f"import os\nx = []\nwhile True:\n    {greedy}"
    hogging = asyncio.create_task(ran(cages, hog, cages.python, "-c", bomb, narrower=Narrower(seconds=3.0)))
    caged = await ran(
        cages, neighbour, "/bin/sh", "-c", "for n in 1 2 3 4 5; do sleep 0.1; echo $n > f; done; cat f; ls /proc | grep -c '^[0-9]'"
    )
    assert (caged.status, caged.stopped, caged.stdout.split()[0]) == (0, "", "5")
    assert (await hogging).stopped != ""


async def test_a_canceled_call_kills_its_program(cages: Cages, workspace: Path) -> None:
    mark = f"8{uuid.uuid4().int % 10**9}"
    call = asyncio.create_task(ran(cages, workspace, "/bin/sh", "-c", f"(setsid sleep {mark} &); sleep {mark}"))
    while len(running(mark)) < 2:
        await asyncio.sleep(0.02)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert running(mark) == []


async def test_what_a_program_is_given_holds_nothing_of_the_worker(cages: Cages, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "canary-of-the-worker")
    caged = await ran(cages, workspace, "/bin/sh", "-c", "env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null; ls -a; ls -a / /tmp")
    assert "HOME=/work" in caged.stdout
    assert "canary" not in caged.stdout


async def test_a_program_that_is_not_there_is_named(cages: Cages, workspace: Path) -> None:
    with pytest.raises(ToolFailed, match="nonesuch"):
        await ran(cages, workspace, "nonesuch")
    with pytest.raises(ToolFailed, match="NUL"):
        await ran(cages, workspace, "/bin/sh", "-c", "echo \0")


async def test_an_agent_narrows_and_never_widens(cages: Cages, workspace: Path) -> None:
    caged = await ran(cages, workspace, "sleep", "9", narrower=Narrower(seconds=0.3))
    assert caged.stopped == "time"
    wide = await ran(cages, workspace, "/bin/sh", "-c", "ulimit -v", narrower=Narrower(seconds=9e9, memory=1 << 50))
    assert wide.stdout == f"{2 * 256 * 1024}\n"


async def test_a_demand_that_a_machine_does_not_meet_is_told_to_whoever_calls(workspace: Path) -> None:
    cages = Cages(narrow(require="files,syscalls"), without=("seccomp",))
    with pytest.raises(ToolFailed, match="not run: this machine does not hold syscalls") as refused:
        await ran(cages, workspace, "true")
    assert "HANSA_CAGE_REQUIRE" in refused.value.hint
    holding = await cages.holding()
    assert (holding.missing, "files" in holding.guarantees, holding.trouble) == (("syscalls",), True, "")


async def test_what_holds_is_known_before_anything_is_run(cages: Cages) -> None:
    holding = await cages.holding()
    assert (holding.missing, holding.trouble) == ((), "")
    assert {"limits", "no-new-privileges"} <= set(holding.layers)
    without = await Cages(narrow(), without=(LANDLOCK, *NO_SPACES)).holding()
    assert "files" in without.missing


@pytest.mark.parametrize(
    "wrong",
    [{"require": "files,walls"}, {"seconds": 0.0}, {"seconds": 90_000.0}, {"memory_mebibytes": -1}, {"processes": 0}, {"at_once": 0}],
)
def test_a_setting_that_makes_no_sense_stops_the_start(wrong: dict[str, object]) -> None:
    with pytest.raises(Misconfigured, match=f"HANSA_CAGE_{next(iter(wrong)).upper()}"):
        Cages(narrow(**wrong))
