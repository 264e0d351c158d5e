"""Starting one process so that it ends with us, whatever happens to us.

Must not know what is started. Warning: the kernel's parent-death signal follows the *thread* that started the process; start
processes from the main thread only.
"""

import asyncio
import ctypes
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable, Mapping
from typing import IO

import msgspec

from hansa.dev.account import Account

PR_SET_PDEATHSIG = 1
PARENT_IS_GONE = 75


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What to start: `fds` are inherited, `death_signal` is sent to it when we die, `account` is whom to run as (None: ourselves)."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    fds: tuple[int, ...] = ()
    death_signal: int = signal.SIGKILL
    account: Account | None = None


async def start(launch: Launch, *, output: IO[bytes] | int) -> Process:
    """Start it in a session of its own: a Ctrl-C in the terminal is for us alone. `output` takes stdout and stderr. Raises OSError."""
    argv, arguments = launch.argv, {}
    if launch.account is not None:
        argv, arguments = launch.account.wrap(argv, death_signal=launch.death_signal), launch.account.arguments()
    return await asyncio.create_subprocess_exec(
        *argv,
        env=launch.env,
        stdin=DEVNULL,
        stdout=output,
        stderr=STDOUT,
        pass_fds=launch.fds,
        start_new_session=True,
        preexec_fn=_end_with_parent(launch.death_signal),
        **arguments,
    )


async def run_to_end(launch: Launch) -> tuple[int, str]:
    """Exit status (negative: the signal) and output of a process that ends by itself; it is killed when we are cancelled."""
    process = await start(launch, output=PIPE)
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return await process.wait(), output.decode(errors="replace")


def _end_with_parent(death_signal: int) -> Callable[[], None]:
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def between_fork_and_exec() -> None:
        prctl(PR_SET_PDEATHSIG, death_signal)
        # Had the parent died before that line, nothing would ever end this process.
        if os.getppid() != parent:
            os._exit(PARENT_IS_GONE)

    return between_fork_and_exec
