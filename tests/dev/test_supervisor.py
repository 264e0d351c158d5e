"""The supervisor: restarts with growing pauses, gives up with a reason, leaves nothing behind."""

import asyncio
import os
import signal
from contextlib import closing
from pathlib import Path

import pytest

from dev.stand_ins import eventually, python
from hansa.dev.failures import NotReady, ServerDied
from hansa.dev.folder import DataFolder
from hansa.dev.launch import Launch
from hansa.dev.supervisor import LOG_BYTES, Child, ChildState, Patience, Supervisor, open_log, read_states

QUICKLY = Patience(first_pause=0.02, longest_pause=0.1, settled=30, quick=2, deaths=5)
SLEEP = ("sleep", "60")


class Told:
    """Remembers what was reported."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, stage: str, detail: str) -> None:
        self.lines.append(f"{stage}: {detail}")


@pytest.fixture
def told() -> Told:
    return Told()


def child(name: str, argv: tuple[str, ...], *, grace: float = 5, env: dict[str, str] | None = None) -> Child:
    return Child(name=name, launch=Launch(argv=argv, env=env or dict(os.environ)), grace=grace)


def state(folder: DataFolder, name: str) -> ChildState | None:
    return next((one for one in read_states(folder.run) if one.name == name and one.pid), None)


async def running(folder: DataFolder, name: str) -> ChildState:
    await eventually(lambda: state(folder, name) is not None)
    found = state(folder, name)
    assert found is not None
    assert (folder.run / f"{name}.pid").read_text() == f"{found.pid}\n"
    return found


async def test_a_killed_process_is_started_again(place: Path, told: Told) -> None:
    async with DataFolder(place) as folder, Supervisor(folder, report=told, patience=QUICKLY) as supervisor:
        await supervisor.start(child("nap", SLEEP))
        first = await running(folder, "nap")
        os.kill(first.pid, signal.SIGKILL)
        await eventually(lambda: (now := state(folder, "nap")) is not None and now.pid != first.pid)
        again = state(folder, "nap")
        assert again is not None
        assert again.restarts == 1
    assert told.lines == ["nap: was killed by SIGKILL; starting it again in 0.0 s"]
    with pytest.raises(ProcessLookupError):
        os.kill(again.pid, 0)
    assert list(folder.run.iterdir()) == []


async def test_five_quick_deaths_end_in_the_last_lines_of_the_log(place: Path, told: Told) -> None:
    dying = python("print('\\n'.join(f'line {n}' for n in range(20))); raise SystemExit(3)")
    async with DataFolder(place) as folder, Supervisor(folder, report=told, patience=QUICKLY) as supervisor:
        await supervisor.start(child("dying", dying))
        with pytest.raises(ServerDied, match="dying ended with exit status 3, 5 times in a row") as died:
            await asyncio.wait_for(supervisor.failure(), 15)
        assert "  line 10\n" in died.value.detail
        assert "  line 9\n" not in died.value.detail
        assert str(folder.log("dying")) in died.value.hint
        assert died.value.exit_code == 69
    assert [line.rpartition(" in ")[2] for line in told.lines] == ["0.0 s", "0.0 s", "0.1 s", "0.1 s"]


async def test_a_long_life_starts_the_pauses_anew(place: Path, told: Told) -> None:
    patient = Patience(first_pause=0.1, longest_pause=5, settled=0.3, quick=0.01, deaths=5)
    async with DataFolder(place) as folder, Supervisor(folder, report=told, patience=patient) as supervisor:
        await supervisor.start(child("nap", ("sleep", "0.4")), child("short", ("sleep", "0.05")))
        await eventually(lambda: sum("nap" in line for line in told.lines) >= 3)
        assert {line.rpartition(" in ")[2] for line in told.lines if "nap" in line} == {"0.1 s"}
        assert [line.rpartition(" in ")[2] for line in told.lines if "short" in line][:3] == ["0.1 s", "0.2 s", "0.4 s"]


async def test_a_wrong_configuration_is_given_up_at_once(place: Path, told: Told) -> None:
    async with DataFolder(place) as folder, Supervisor(folder, report=told) as supervisor:
        await supervisor.start(child("wrong", python("raise SystemExit(78)")))
        with pytest.raises(ServerDied, match="wrong ended with exit status 78;"):
            await asyncio.wait_for(supervisor.failure(), 10)
    assert told.lines == []


async def test_a_missing_program_is_named(place: Path, told: Told) -> None:
    async with DataFolder(place) as folder, Supervisor(folder, report=told) as supervisor:
        await supervisor.start(child("ghost", ("/nowhere/ghost",)))
        with pytest.raises(ServerDied, match=r"ghost can't be started: .*/nowhere/ghost"):
            await asyncio.wait_for(supervisor.failure(), 10)


async def test_one_that_is_not_ready_in_time_is_told_with_its_log(place: Path, told: Told) -> None:
    async def never() -> bool:
        return False

    async with DataFolder(place) as folder, Supervisor(folder, report=told) as supervisor:
        await supervisor.start(child("slow", python("import time; print('warming up', flush=True); time.sleep(60)")))
        await eventually(lambda: b"warming" in folder.log("slow").read_bytes() if folder.log("slow").exists() else False)
        with pytest.raises(NotReady, match=r"slow was not ready after 0\.1 seconds.*\n  warming up"):
            await supervisor.until(never, name="slow", seconds=0.1)


async def test_the_last_started_is_stopped_first(place: Path, told: Told) -> None:
    polite = """
import os, signal, sys, time
def stop(*_):
    time.sleep(0.1)
    open(os.environ["LIST"], "a").write(sys.argv[1] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
open(os.environ["LIST"], "a").write("up\\n")
while True: time.sleep(60)
"""
    order = place / "order"
    env = {**os.environ, "LIST": str(order)}
    async with DataFolder(place / "data") as folder, Supervisor(folder, report=told) as supervisor:
        for name in ("first", "second", "third"):
            await supervisor.start(child(name, (*python(polite), name), env=env))
        await eventually(lambda: order.exists() and order.read_text().count("up") == 3)
    assert order.read_text().split()[3:] == ["third", "second", "first"]


async def test_one_that_ignores_its_stop_signal_is_killed_after_its_grace(place: Path, told: Told) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)\nwhile True: time.sleep(60)"
    async with DataFolder(place) as folder:
        async with Supervisor(folder, report=told) as supervisor:
            await supervisor.start(child("deaf", python(deaf), grace=0.3))
            left = await running(folder, "deaf")
            await eventually(lambda: folder.log("deaf").read_bytes() == b"deaf\n")
            began = asyncio.get_running_loop().time()
        assert 0.25 < asyncio.get_running_loop().time() - began < 5
        with pytest.raises(ProcessLookupError):
            os.kill(left.pid, 0)


async def test_a_second_request_to_stop_grants_no_grace(place: Path, told: Told) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)\nwhile True: time.sleep(60)"
    async with DataFolder(place) as folder:
        async with Supervisor(folder, report=told) as supervisor:
            await supervisor.start(child("deaf", python(deaf), grace=50))
            await eventually(lambda: folder.log("deaf").read_bytes() == b"deaf\n" if folder.log("deaf").exists() else False)
            began = asyncio.get_running_loop().time()
            asyncio.get_running_loop().call_later(0.1, supervisor.hurry)
        assert asyncio.get_running_loop().time() - began < 10


async def test_a_ctrl_c_in_the_terminal_reaches_the_supervisor_alone(place: Path, told: Told) -> None:
    async with DataFolder(place) as folder, Supervisor(folder, report=told) as supervisor:
        await supervisor.start(child("nap", SLEEP))
        found = await running(folder, "nap")
        assert os.getpgid(found.pid) == found.pid != os.getpgid(0)


async def test_a_process_inherits_what_it_is_lent_and_nothing_else(place: Path, told: Told) -> None:
    reader, writer = os.pipe()
    hidden, other = os.pipe()
    with closing(os.fdopen(reader)) as lent:
        code = f"import os; os.write({writer}, b'lent'); os.fstat({hidden})"
        launch = Launch(argv=python(code), env=dict(os.environ), fds=(writer,))
        async with DataFolder(place) as folder, Supervisor(folder, report=told, patience=Patience(deaths=1)) as supervisor:
            await supervisor.start(Child(name="heir", launch=launch))
            with pytest.raises(ServerDied, match="Bad file descriptor"):
                await asyncio.wait_for(supervisor.failure(), 10)
        os.close(writer)
        assert lent.read() == "lent"
    os.close(hidden)
    os.close(other)


def test_a_log_that_has_grown_too_large_is_put_aside(place: Path) -> None:
    log = place / "a.log"
    with log.open("wb") as full:
        full.truncate(LOG_BYTES + 1)
    with open_log(log) as fresh:
        fresh.write(b"new")
    with open_log(log) as same:
        same.write(b"er")
    assert log.read_bytes() == b"newer"
    assert (place / "a.log.1").stat().st_size == LOG_BYTES + 1
