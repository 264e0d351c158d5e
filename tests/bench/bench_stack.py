"""How long the whole stack takes to be ready over a folder that is there already, and what it holds in memory when idle.

Whole processes, as a user starts them: `hansa up --detach`. Memory is the proportional set size of all of them, without the model.
"""

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.figures import Figures

ROUNDS = 5
HANSA = Path(__file__).parents[2] / ".venv/bin/hansa"


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hansa-bench-"))
    yield path / "data"
    shutil.rmtree(path, ignore_errors=True)


def up(folder: Path) -> float:
    """Start the stack; seconds until it is ready."""
    begin = time.perf_counter()
    subprocess.run([HANSA, "up", "--data", folder, "--port", "0", "--detach"], check=True, capture_output=True, timeout=60)
    return time.perf_counter() - begin


def down(folder: Path) -> None:
    subprocess.run([HANSA, "down", "--data", folder], check=True, capture_output=True, timeout=60)


def mebibytes(folder: Path) -> float:
    """Proportional set size of every process that the stack started, and of the one that started them."""
    roots = {int(path.read_text().split()[0]) for path in (folder / "run").glob("*.pid")}
    roots.add(int(re.findall(r'"pid": (\d+)', (folder / "ready.json").read_text())[0]))
    total = 0
    for pid in tree(roots):
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        total += int(found[1]) if found else 0
    return total / 1024


def tree(roots: set[int]) -> set[int]:
    """The processes and all their descendants."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended meanwhile
    found = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def test_the_stack_is_ready_soon_and_small(folder: Path, figures: Figures) -> None:
    cold, warm, memory = [up(folder)], list[float](), list[float]()
    for _ in range(ROUNDS):
        time.sleep(2)
        memory.append(mebibytes(folder))
        down(folder)
        warm.append(up(folder))
    down(folder)
    figures.report("stack_ready_first", cold, unit="s")
    assert figures.report("stack_ready_warm", warm, unit="s", at_most=5) <= 5
    assert figures.report("stack_idle_memory", memory, unit="MiB", at_most=250) <= 250
