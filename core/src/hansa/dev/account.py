"""The user that PostgreSQL runs as, for it refuses to run as root.

Must not know PostgreSQL beyond that. Warning: a root whose folder lies below a private one (say /root) gives the server the one
capability to pass through folders, CAP_DAC_READ_SEARCH; it can then read any file, so its superuser is as good as root for reading.
"""

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from hansa.dev.failures import FolderUnreachable
from hansa.dev.folder import user_name

UNPRIVILEGED = "nobody"
UNPRIVILEGED_ID = 65534
"""Its number in images so small that they name no users."""

PROBE_SECONDS = 10.0
EVERYONE_PASSES = 0o001


class Account(msgspec.Struct, frozen=True):
    """A user to become; `passes` when it needs the capability to pass through private folders."""

    uid: int
    gid: int
    passes: bool

    def wrap(self, argv: tuple[str, ...], *, death_signal: int) -> tuple[str, ...]:
        """The command line that becomes this user first, where a plain change of user does not do."""
        if not self.passes:
            return argv
        # A change of user clears the parent-death signal, so it is set by the program that changes it.
        return (
            "setpriv",
            f"--reuid={self.uid}",
            f"--regid={self.gid}",
            "--clear-groups",
            "--inh-caps=+dac_read_search",
            "--ambient-caps=+dac_read_search",
            f"--pdeathsig={signal.Signals(death_signal).name.removeprefix('SIG')}",
            *argv,
        )

    def arguments(self) -> dict[str, Any]:
        """Arguments for subprocess.Popen that become this user, where a plain change of user does."""
        return {} if self.passes else {"user": self.uid, "group": self.gid, "extra_groups": []}


def server_account(folder: Path, *, program: Path) -> Account | None:
    """Whom to run `program` as over `folder`; None for ourselves. Raises `FolderUnreachable` when there is no such user."""
    if os.geteuid() != 0:
        return None
    owner = folder.stat()
    if owner.st_uid:
        uid, gid = owner.st_uid, owner.st_gid
    else:
        uid, gid = _unprivileged()
        os.chown(folder, uid, gid)
    blocking = [
        place for path in (folder.resolve(), program.resolve()) for place in path.parents if not place.stat().st_mode & EVERYONE_PASSES
    ]
    account = Account(uid=uid, gid=gid, passes=bool(blocking))
    if blocking and not _works(account, program):
        raise FolderUnreachable(
            f"PostgreSQL refuses to run as root, and user {user_name(uid)}, as whom it would run, can't pass through {blocking[0]}",
            hint=f"Let it pass (chmod o+x {blocking[0]}), use a folder elsewhere (--data DIR), or start Hansa as a user that is not root.",
        )
    return account


def _unprivileged() -> tuple[int, int]:
    try:
        user = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        return UNPRIVILEGED_ID, UNPRIVILEGED_ID
    return user.pw_uid, user.pw_gid


def _works(account: Account, program: Path) -> bool:
    if shutil.which("setpriv") is None:
        return False
    argv = account.wrap((str(program), "--version"), death_signal=signal.SIGKILL)
    return subprocess.run(argv, check=False, capture_output=True, timeout=PROBE_SECONDS).returncode == 0
