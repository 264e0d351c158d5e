"""The cage stops every probe, by all its layers and by the half of them that other machines have; without it each gets through."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from cage.conftest import SMALL, Launch, Targets, python_for_all
from cage.probes import PROBES, got_through, program
from hansa.tools.cage.order import GUARANTEES, LANDLOCK, LAYERS, MOUNTS, NETWORK, PROCESSES, SECCOMP, USER, guarantees

SPACES = (USER, MOUNTS, NETWORK, PROCESSES)
KINDS = {"all layers": (), "no namespaces, as in many containers": SPACES, "namespaces alone, as on old kernels": (LANDLOCK, SECCOMP)}


HARMLESS: Mapping[str, frozenset[str]] = {
    "namespaces alone, as on old kernels": frozenset(
        {"be traced", "listen", "keep memory that no process has", "share memory with the machine"}
    )
}
"""By its own parent, on a network and with shared memory that nobody else is on; what it keeps is bounded by `syscalls` alone."""
OUT_OF_REACH = frozenset({"write into the system", "read the environment of whoever began it"})
"""What an ordinary user can't do uncaged either."""
HUGE = SMALL._replace(memory=1 << 40, processes=1 << 20, disk_bytes=1 << 40)


@pytest.mark.parametrize("kind", KINDS)
def test_every_probe_is_stopped(launch: Launch, workspace: Path, targets: Targets, kind: str) -> None:
    ended = launch.run([python_for_all(), "-I", "-c", program(**targets.words)], workspace, without=KINDS[kind])
    assert (ended.trouble, ended.stopped, ended.status) == ("", "", 0)
    assert got_through(ended.stdout) == HARMLESS.get(kind, frozenset()), ended.stdout


def test_uncaged_every_probe_gets_through(workspace: Path, targets: Targets) -> None:
    code = program(**targets.words)
    done = subprocess.run([python_for_all(), "-I", "-c", code], cwd=workspace, env={"A": "b"}, capture_output=True, text=True, check=False)
    assert set(PROBES) - got_through(done.stdout) <= (OUT_OF_REACH if os.geteuid() else set()), done.stdout


def test_without_any_layer_the_same_launcher_stops_nothing(workspace: Path, targets: Targets) -> None:
    # What belongs to another user an ordinary one can't have: there it aims at a process of its own.
    words = {**targets.words, "worker": targets.words["neighbour"]}
    ended = Launch("ordinary").run([python_for_all(), "-I", "-c", program(**words)], workspace, bounds=HUGE, without=LAYERS)
    assert set(PROBES) - got_through(ended.stdout) <= OUT_OF_REACH, ended.stdout


def test_the_layers_that_are_left_out_are_not_reported(launch: Launch, workspace: Path) -> None:
    assert not {layer.split("-")[0] for layer in launch.run([], workspace, without=(LANDLOCK,)).layers} & {LANDLOCK}
    assert not set(SPACES) & set(launch.run([], workspace, without=SPACES).layers)


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_machine_that_does_not_hold_what_is_demanded_runs_nothing(launch: Launch, workspace: Path, guarantee: str) -> None:
    ended = launch.run(["/bin/sh", "-c", "echo ran > ran"], workspace, without=LAYERS, required=[guarantee])
    assert ended.trouble == f"this machine does not hold {guarantee}"
    assert not (workspace / "ran").exists()
    held = launch.run(["/bin/sh", "-c", "echo ran > ran"], workspace, required=[guarantee])
    assert (held.trouble, (workspace / "ran").read_text()) == ("", "ran\n")


@pytest.mark.parametrize(
    ("layers", "held"),
    [
        ([NETWORK, MOUNTS], {"files", "network"}),
        ([NETWORK], set[str]()),
        ([SECCOMP], {"network", "syscalls"}),
        (["landlock-5"], {"files"}),
        (["landlock-6", PROCESSES], {"files", "processes"}),
        ([USER, "limits", "no-new-privileges"], set[str]()),
    ],
)
def test_what_layers_are_good_for(layers: list[str], held: set[str]) -> None:
    assert set(guarantees(layers)) == held


def test_a_program_is_nobody_there_without_any_power(launch: Launch, workspace: Path) -> None:
    ended = launch.run(["/bin/sh", "-c", "id -u; grep -E 'Cap(Prm|Eff|Bnd)|NoNewPrivs' /proc/self/status; env; ls -a /"], workspace)
    assert ended.stdout.startswith("1000\n")
    assert ended.stdout.count("0000000000000000") == 3
    assert "NoNewPrivs:\t1" in ended.stdout
    assert "home" not in ended.stdout.split("\n")


def test_what_it_writes_in_the_workspace_stays(launch: Launch, workspace: Path) -> None:
    (workspace / "given").write_text("from outside")
    first = launch.run(["/bin/sh", "-c", "cat given; mkdir -p deep/er; echo made > deep/er/file; pwd"], workspace)
    assert (first.status, first.stdout.splitlines()) == (0, ["from outside/work"])
    assert (workspace / "deep/er/file").read_text() == "made\n"
    (workspace / "deep/more").write_text("by the worker")
    second = launch.run(["/bin/sh", "-c", "cat deep/er/file deep/more && rm -r deep given"], workspace)
    assert (second.stdout, second.stderr) == ("made\nby the worker", "")
    assert list(workspace.iterdir()) == []
