"""Cages of a worker: each call of a program gets a launcher, a process that builds the cage and watches it from outside.

Must not know tools or agents. Warning: the launcher is given no environment: what it had, a program might find.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

import hansa
from hansa.egress.tunnel import Tunnels
from hansa.errors import Misconfigured
from hansa.settings import CageSettings
from hansa.tools.cage.hatch import open_hatch
from hansa.tools.cage.order import GUARANTEES, Bounds, Ended, Order, guarantees
from hansa_sdk import Caged, ToolFailed

log = structlog.stdlib.get_logger("hansa.cage")
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
"""What programs need of a system, and no secret lies in. What is not there is left out."""
CERTIFICATES = ("/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted")
"""What a program with a hatch needs to know whom it speaks to."""
LONGEST_SECONDS = 3600.0
_MEBIBYTE = 1024 * 1024
_GRACE_SECONDS = 30.0
"""For a launcher to build a cage and to clear it away, beside the program's own time."""
_PROBE_SECONDS = 30.0
_END_SECONDS = 5.0
_MAIN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from hansa.tools.cage.launcher import main; main()"


class Narrower(msgspec.Struct, frozen=True):
    """Bounds that an agent sets for its calls; None: those of the operator, which also cap these. `network`: there is a hatch."""

    seconds: float | None = None
    memory: int | None = None
    network: bool = False


class Holding(msgspec.Struct, frozen=True):
    """What holds on this machine: layers that are in force, the guarantees they give, those that are demanded and missing."""

    layers: tuple[str, ...]
    guarantees: tuple[str, ...]
    missing: tuple[str, ...]
    trouble: str = ""


class Cages:
    """What a process needs to run programs in cages. Raises `Misconfigured` for settings that make no sense."""

    def __init__(self, settings: CageSettings, tunnels: Tunnels | None = None, *, without: Sequence[str] = ()) -> None:
        """`tunnels`: where a hatch leads to; None: no program gets one. `without`: layers to leave out, for tests of what holds then."""
        self._tunnels = tunnels
        self._required = _required(settings.require)
        self._bounds = _bounds(settings)
        self._without = list(without)
        self._slots = asyncio.Semaphore(settings.at_once)
        self._python = os.path.realpath(sys.executable)
        self._readable = sorted({*SYSTEM, sysconfig.get_path("stdlib"), *_program_parts(self._python)})

    @property
    def python(self) -> str:
        return self._python

    async def holding(self) -> Holding:
        """Build an empty cage over a folder of its own and see what holds."""
        try:
            with tempfile.TemporaryDirectory(prefix="hansa-cage-") as folder:
                async with asyncio.timeout(_PROBE_SECONDS):
                    ended = await self._launch([], Path(folder), "", self._bounds)
        except (OSError, TimeoutError, ValueError) as error:
            return Holding((), (), tuple(self._required), f"no cage can be built: {error or type(error).__name__}")
        found = guarantees(ended.layers)
        missing = tuple(name for name in self._required if name not in found)
        return Holding(tuple(ended.layers), tuple(found), missing, "" if missing else ended.trouble)

    async def run(self, program: Sequence[str], workspace: Path, *, stdin: str, narrower: Narrower) -> Caged:
        """Run a program over a workspace. Raises `ToolFailed`."""
        bounds = self._bounds._replace(
            seconds=min(self._bounds.seconds, narrower.seconds or self._bounds.seconds),
            memory=min(self._bounds.memory, narrower.memory or self._bounds.memory),
        )
        if not program or any("\0" in part for part in program):
            raise ToolFailed("the program holds a NUL character, or is none")
        async with self._slots:
            try:
                async with asyncio.timeout(bounds.seconds + _GRACE_SECONDS):
                    ended = await self._launch(list(program), workspace, stdin, bounds, network=narrower.network)
            except TimeoutError as error:
                raise ToolFailed(f"the program did not end within {bounds.seconds:g} s and was killed") from error
            except (OSError, ValueError) as error:
                log.exception("cage.broke")
                raise ToolFailed(
                    "the cage could not be built", hint="The worker's log says why; `hansa doctor` shows the layers."
                ) from error
        if ended.trouble:
            log.warning("cage.refused", trouble=ended.trouble, layers=ended.layers)
            raise ToolFailed(
                f"the program was not run: {ended.trouble}", hint="The operator demands it by HANSA_CAGE_REQUIRE; see `hansa doctor`."
            )
        return Caged(
            status=ended.status,
            signal=ended.signal,
            stopped=ended.stopped,
            stdout=ended.stdout,
            stderr=ended.stderr,
            seconds=ended.seconds,
        )

    async def _launch(self, program: list[str], workspace: Path, stdin: str, bounds: Bounds, *, network: bool = False) -> Ended:
        order = Order(program, os.path.realpath(workspace), self._readable, stdin, bounds, self._required, self._without)
        if not network:
            return await _launched(order)
        if self._tunnels is None:
            raise ToolFailed("programs of this process get no network")
        outer, inner = socket.socketpair()
        with inner:
            async with open_hatch(outer, self._tunnels):
                shown = [*self._readable, *CERTIFICATES]
                return await _launched(order._replace(hatch=inner.fileno(), readable=shown))


class RunCage:
    """Implements `hansa_sdk.Cage` for one call."""

    def __init__(self, cages: Cages, workspace: Path, narrower: Narrower) -> None:
        self._cages = cages
        self._workspace = workspace
        self._narrower = narrower

    @property
    def python(self) -> str:
        return self._cages.python

    async def run(self, program: Sequence[str], *, stdin: str = "") -> Caged:
        return await self._cages.run(program, self._workspace, stdin=stdin, narrower=self._narrower)


async def _launched(order: Order) -> Ended:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", _MAIN, _root()),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env={},
        start_new_session=True,
        pass_fds=[order.hatch] if order.hatch >= 0 else [],
    )
    if process.stdin is not None:
        process.stdin.write(json.dumps(order._asdict()).encode() + b"\n")
    try:
        answer, complaint = await asyncio.gather(*(stream.read() for stream in (process.stdout, process.stderr) if stream is not None))
        await process.wait()
    finally:
        if process.returncode is None:
            await asyncio.shield(_end(process))
    if not answer:
        raise OSError(f"the launcher ended with {process.returncode}: {complaint.decode(errors='replace')[-500:]}")
    return Ended(**json.loads(answer))


async def _end(process: asyncio.subprocess.Process) -> None:
    """The end of its input tells a launcher to kill what it watches; one that does not listen is killed, and the kernel kills the rest."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _root() -> str:
    """The folder that this package is imported from."""
    return str(Path(hansa.__file__ or "").resolve().parents[1])


def _program_parts(python: str) -> list[str]:
    """What an interpreter needs beside its standard library: itself, and the libraries beside it."""
    return [python, str(Path(python).parents[1] / "lib")]


def _required(text: str) -> list[str]:
    named = [each.strip() for each in text.split(",") if each.strip()]
    unknown = sorted(set(named) - set(GUARANTEES))
    if unknown:
        raise Misconfigured(f"HANSA_CAGE_REQUIRE names {', '.join(unknown)}", hint=f"The guarantees are {', '.join(GUARANTEES)}.")
    return named


def _bounds(settings: CageSettings) -> Bounds:
    for name in msgspec.structs.asdict(settings):
        value = getattr(settings, name)
        if name != "require" and not 0 < value <= (LONGEST_SECONDS if name == "seconds" else 2**30):
            raise Misconfigured(f"HANSA_CAGE_{name.upper()} is {value}", hint=f"It is above 0; seconds are at most {LONGEST_SECONDS:g}.")
    return Bounds(
        seconds=settings.seconds,
        memory=settings.memory_mebibytes * _MEBIBYTE,
        processes=settings.processes,
        file_bytes=settings.file_mebibytes * _MEBIBYTE,
        disk_bytes=settings.disk_mebibytes * _MEBIBYTE,
        output_bytes=settings.output_kibibytes * 1024,
    )
