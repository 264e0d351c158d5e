"""What is done to the platform: each fault hurts one thing, and returns when that is healed.

A fault is a name and a coroutine; `decks` says which of them each lane draws from.
"""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from chaos.disk import Disk
from chaos.ledger import Death
from chaos.rig import Member, Rig
from hansa.dev import processes
from runs.engine import LEASE

Inject = Callable[[random.Random], Awaitable[None]]
PAST_LEASE = (LEASE + 0.5, LEASE + 1.5)
HOUR = 3600
BUSY_RUNS = 3
BUSY_SECONDS = 5.0
KILLED_SECONDS = 0.1
AT_WORK = "SELECT id FROM hansa.runs WHERE state = 'running' AND worker LIKE $1"
LIBFAKETIME = "libfaketime/vendor/libfaketime/src/libfaketime.so.1"


class Fault(msgspec.Struct, frozen=True):
    """One kind of harm; `inject` returns when it is over."""

    kind: str
    inject: Inject


def faketime() -> Path | None:
    """The library that shifts the clock of a process, where it does so; None where it is missing or for another machine."""
    found = next((path for path in (Path(folder) / LIBFAKETIME for folder in sys.path) if path.is_file()), None)
    if found is None:
        return None
    told = subprocess.run(
        [sys.executable, "-S", "-c", "import time; print(time.time())"],
        env=shifted(found, HOUR),
        capture_output=True,
        check=True,
        text=True,
        timeout=10,
    )
    return found if abs(float(told.stdout) - time.time() - HOUR) < HOUR / 2 else None


def shifted(library: Path, seconds: int) -> dict[str, str]:
    """What a process is given so that its wall clock goes wrong; its monotonic one stays right."""
    return {"LD_PRELOAD": str(library), "FAKETIME": f"{seconds:+d}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def of_links(member: Member) -> list[Fault]:
    """Harm to the connections between one process and the servers."""

    def chosen(chance: random.Random) -> str:
        return chance.choice(("postgres", "postgres", "nats"))

    async def cut(chance: random.Random) -> None:
        member.links[chosen(chance)].cut()

    async def half_close(chance: random.Random) -> None:
        member.links[chosen(chance)].half_close()

    async def stall(chance: random.Random) -> None:
        await member.links[chosen(chance)].stall(chance.uniform(0.2, LEASE + 1.0))

    async def mute(chance: random.Random) -> None:
        await member.links[chosen(chance)].mute(chance.uniform(0.05, 0.5))

    return [Fault("link_cut", cut), Fault("link_half_close", half_close), Fault("link_stall", stall), Fault("link_mute", mute)]


def of_process(name: str, member: Member, library: Path | None) -> list[Fault]:
    """Harm to one process, by the name that its kind has in the faults; with `library`, see `faketime`, also to its clock."""

    async def kill(chance: random.Random) -> None:
        await member.kill()

    async def freeze(chance: random.Random) -> None:
        await member.freeze(chance.uniform(*PAST_LEASE))

    async def drain(chance: random.Random) -> None:
        await member.drain()

    found = [Fault(f"{name}_kill", kill), Fault(f"{name}_freeze", freeze)] * 2 + [Fault(f"{name}_drain", drain), *of_links(member)]
    if library is None:
        return found
    wrong = {hours: shifted(library, hours * HOUR) for hours in (-1, 1)}

    async def shift(chance: random.Random) -> None:
        await member.kill(extra=wrong[chance.choice((-1, 1))])

    return [*found, Fault(f"{name}_clock", shift)]


def of_nats(rig: Rig) -> list[Fault]:
    """Harm to NATS."""

    async def kill(chance: random.Random) -> None:
        await _killed(rig, "nats")
        await rig.servers.nats.ready()

    async def freeze(chance: random.Random) -> None:
        with _stopped([rig.server_pid("nats")]):
            await asyncio.sleep(chance.uniform(0.5, 5.0))

    async def wipe(chance: random.Random) -> None:
        async def lost() -> None:
            await asyncio.to_thread(shutil.rmtree, rig.servers.folder.nats, ignore_errors=True)

        await _kept_down(rig, "nats", [rig.server_pid("nats")], lost)

    return [Fault("nats_kill", kill)] * 2 + [Fault("nats_freeze", freeze), Fault("nats_wipe", wipe)]


def of_postgres(rig: Rig, disk: Disk | None) -> list[Fault]:
    """Harm to PostgreSQL; with a disk of its own, also to that."""

    def family() -> list[int]:
        return processes.working_in(rig.servers.folder.postgres / "data", program="postgres")

    async def kill(chance: random.Random) -> None:
        await _killed(rig, "postgres")
        await rig.servers.postgres.ready()

    async def kill_backend(chance: random.Random) -> None:
        connection = await rig.admin()
        rows = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE usename LIKE 'hansa%' ORDER BY pid")
        if rows:
            os.kill(chance.choice(rows)["pid"], signal.SIGKILL)
        with suppress(Exception):
            await connection.close()
        await rig.servers.postgres.ready()

    async def restart(chance: random.Random) -> None:
        await _killed(rig, "postgres", signal.SIGINT)
        await rig.servers.postgres.ready()

    async def freeze(chance: random.Random) -> None:
        with _stopped(family()):
            await asyncio.sleep(chance.uniform(0.3, LEASE + 1.0))

    found = [Fault("postgres_kill", kill), Fault("postgres_backend_kill", kill_backend), Fault("postgres_restart", restart)]
    found.append(Fault("postgres_freeze", freeze))
    if disk is None:
        return found

    async def power_loss(chance: random.Random) -> None:
        await asyncio.to_thread(disk.unplug)

        async def replugged() -> None:
            while left := family():
                _signal(left, signal.SIGKILL)
                await asyncio.sleep(0.02)
            await asyncio.to_thread(disk.replug)

        await _kept_down(rig, "postgres", family(), replugged)

    async def full(chance: random.Random) -> None:
        await asyncio.to_thread(disk.fill)
        try:
            await asyncio.sleep(chance.uniform(0.5, 2.0))
        finally:
            disk.free()
        await rig.servers.postgres.ready()

    return [*found, Fault("postgres_power_loss", power_loss), Fault("postgres_disk_full", full)]


async def measured_kill(rig: Rig, member: Member) -> Death:
    """Kill a worker that is at work while nothing else is hurt, and leave its runs to the other; the logs tell how that went."""
    await rig.whole("worker")
    connection = await rig.admin()
    try:
        name, end = f"%-{member.pid}-%", time.monotonic() + BUSY_SECONDS
        while time.monotonic() < end and len(await connection.fetch(AT_WORK, name)) < BUSY_RUNS:
            await asyncio.sleep(0.05)
        at = time.time()
        dying = asyncio.create_task(member.kill(away=LEASE + 1.5), name="measured kill")
        await asyncio.sleep(KILLED_SECONDS)
        # Their leases still run, so what it had in hand still bears its name.
        runs = frozenset(str(row["id"]) for row in await connection.fetch(AT_WORK, name))
        await dying
    finally:
        await connection.close()
    return Death(at, runs)


async def _killed(rig: Rig, server: str, number: int = signal.SIGKILL) -> None:
    """Signal a server and wait until its supervisor has started another."""
    dead = rig.server_pid(server)
    _signal([dead], number)
    while rig.server_pid(server) in (0, dead):
        await asyncio.sleep(0.02)


async def _kept_down(rig: Rig, server: str, pids: list[int], meanwhile: Callable[[], Awaitable[None]]) -> None:
    """Kill a server, do something while it is down, and start it again."""
    kept = getattr(rig.servers, server)
    stopping = asyncio.create_task(rig.servers.supervisor.stop(server), name=f"stop {server}")
    await asyncio.sleep(0)  # from here on the supervisor does not start it again
    _signal(pids, signal.SIGKILL)
    await stopping
    await meanwhile()
    await rig.servers.supervisor.start(kept.child())
    await kept.ready()


@contextmanager
def _stopped(pids: list[int]) -> Iterator[None]:
    ticks = {pid: processes.start_tick(pid) for pid in pids}
    _signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal([pid for pid, tick in ticks.items() if tick is not None and processes.is_alive(pid, tick)], signal.SIGCONT)


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        if pid > 0:  # 0 would be the whole group, ours
            with suppress(ProcessLookupError):
                os.kill(pid, number)
