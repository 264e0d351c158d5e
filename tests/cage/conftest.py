"""A cage as a worker builds it, once as whoever runs the tests, once as an ordinary user when that is root; and what probes aim at."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

import hansa
from hansa.settings import CageSettings
from hansa.tools.cage.order import Bounds, Ended, Order
from hansa.tools.cage.service import Cages

ORDINARY = 12_345
USERS = ("root", "ordinary") if os.geteuid() == 0 else ("ordinary",)
SMALL = Bounds(seconds=20.0, file_bytes=8 << 20, disk_bytes=64 << 20)
ROOT = str(Path(hansa.__file__).resolve().parents[1])
_DROPPED = f"os.setgroups([]); os.setresgid(*[{ORDINARY}] * 3); os.setresuid(*[{ORDINARY}] * 3); kernel.be_dumpable(1)"


def python_for_all() -> str:
    """An interpreter that every user may run."""
    found = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
    own = os.path.realpath(sys.executable)
    readable = all(folder.stat().st_mode & 0o005 == 0o005 for folder in Path(own).parents)
    assert readable or found, "the tests want a Python that an ordinary user may run"
    return own if readable or found is None else os.path.realpath(found)


def as_ordinary() -> dict[str, Any]:
    """Options of a process that is an ordinary user's."""
    return {"user": ORDINARY, "group": ORDINARY, "extra_groups": ()} if os.geteuid() == 0 else {}


class Launch(NamedTuple):
    """Starts launchers as one kind of user."""

    user: str

    def command(self) -> list[str]:
        dropped = _DROPPED if self.user == "ordinary" and os.geteuid() == 0 else ""
        loaded = "import os, sys; sys.path.insert(0, sys.argv.pop(1)); from hansa.tools.cage import kernel, launcher"
        main = f"{loaded}; {dropped}\nlauncher.main()"
        return [sys.executable, "-I", "-S", "-c", main, ROOT]

    def run(
        self, program: Sequence[str], workspace: Path, *, bounds: Bounds = SMALL, without: Sequence[str] = (), required: Sequence[str] = ()
    ) -> Ended:
        if self.user == "ordinary" and os.geteuid() == 0:
            os.chown(workspace, ORDINARY, ORDINARY)
        order = Order(list(program), str(workspace), readable(), "", bounds, list(required), list(without))
        done = subprocess.Popen(self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={})
        assert done.stdin is not None
        assert done.stdout is not None
        done.stdin.write(json.dumps(order._asdict()).encode() + b"\n")
        done.stdin.flush()
        answer = done.stdout.read()
        done.stdin.close()
        done.stdout.close()
        done.wait(10)
        return Ended(**json.loads(answer))


def readable() -> list[str]:
    """What a worker shows in a cage, with the interpreter for all."""
    python = Path(python_for_all())
    return ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", str(python), str(python.parents[1] / "lib")]


@pytest.fixture(params=USERS)
def launch(request: pytest.FixtureRequest) -> Launch:
    return Launch(request.param)


@pytest.fixture
def workspace() -> Iterator[Path]:
    """Where an ordinary user gets to, which pytest's own folders are not."""
    folder = Path(tempfile.mkdtemp(prefix="hansa-cage-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class Targets(NamedTuple):
    """What probes aim at, by the words they use."""

    words: dict[str, object]


@pytest.fixture(scope="module")
def targets() -> Iterator[Targets]:
    """Listeners, a secret, a folder that everyone may write to, a neighbour: all outside of the cage, open to whoever gets there."""
    folder = Path(tempfile.mkdtemp(prefix="hansa-targets-"))
    folder.chmod(0o777)
    secret = folder / "secret"
    secret.write_text("nobody's business")
    udp, unix, abstract = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    udp.bind(("127.0.0.1", 0))
    unix.bind(str(folder / "socket"))
    (folder / "socket").chmod(0o777)
    abstract.bind(f"\0hansa-{os.getpid()}")
    unix.listen()
    abstract.listen()
    marker = f"777{os.getpid()}"
    # It belongs to whoever the probes are outside, so that rights alone would not save it.
    neighbour = subprocess.Popen(["sleep", marker], **as_ordinary())
    with socket.create_server(("127.0.0.1", 0)) as tcp, udp, unix, abstract:
        yield Targets(
            {
                "secret": secret,
                "home": folder,
                "outside": folder,
                "worker": os.getpid(),
                "rekram": marker[::-1],
                "neighbour": neighbour.pid,
                "tcp": tcp.getsockname()[1],
                "udp": udp.getsockname()[1],
                "unix": folder / "socket",
                "abstract": f"hansa-{os.getpid()}",
            }
        )
    neighbour.kill()
    neighbour.wait()
    shutil.rmtree(folder)


@pytest.fixture
def cages() -> Cages:
    """As a worker has them, with narrow bounds."""
    return Cages(narrow())


def narrow(**changes: object) -> CageSettings:
    """Settings of cages for tests."""
    return msgspec.structs.replace(
        CageSettings(seconds=20.0, memory_mebibytes=256, processes=16, file_mebibytes=8, disk_mebibytes=32, output_kibibytes=64), **changes
    )
