"""Data folders: fresh ones, and ones in which a database was made already, which saves a second each."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.stand_ins import all_gone, commands, environ
from hansa.dev.folder import DataFolder
from hansa.dev.servers import embedded_servers
from hansa.dev.supervisor import read_states
from hansa.dev.up import UpOptions

ROOM_BYTES = 2 << 30
MEMORY = Path("/dev/shm")


def ground() -> Path | None:
    """Where folders are made: in memory when there is room, since disks of test machines are slow and no test here cuts the power."""
    return MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES else None


@pytest.fixture
def place() -> Iterator[Path]:
    """A short, private folder, with whatever stack is left in it ended."""
    path = Path(tempfile.mkdtemp(prefix="hansa-", dir=ground()))
    yield path
    for lock in path.glob("**/lock"):
        holder = DataFolder(lock.parent).holder()
        if holder and holder.pid and holder.pid != os.getpid():
            states = read_states(lock.parent / "run")
            os.kill(holder.pid, signal.SIGKILL)
            asyncio.run(all_gone([state.pid for state in states]))
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def made() -> Iterator[Path]:
    """A data folder in which both servers have run once."""
    path = Path(tempfile.mkdtemp(prefix="hansa-made-", dir=ground()))

    async def make() -> None:
        async with embedded_servers(path / "data"):
            pass

    asyncio.run(make())
    yield path / "data"
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def warm(place: Path, made: Path) -> Path:
    """A copy of that folder of one's own."""
    subprocess.run(["cp", "-a", str(made), str(place / "warm")], check=True, timeout=30)
    return place / "warm"


@pytest.fixture
def options(warm: Path) -> UpOptions:
    """A stack of real servers and stand-ins over a warm folder, on a free port."""
    return UpOptions(data=warm, port=0, environ=environ(), commands=commands(), ready_seconds=15, grace_seconds=5)
