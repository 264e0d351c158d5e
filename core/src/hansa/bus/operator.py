"""What a NATS server in operator mode is started with: its configuration, and how Hansa's own processes log in.

The configuration names the operator, holds the platform's two accounts, and keeps those of tenants in a folder of its own.
"""

import os
from pathlib import Path
from typing import Any

import msgspec

from hansa import clock
from hansa.bus import claims
from hansa.bus.keys import Kind, Operator, new_key, read_operator
from hansa.errors import Misconfigured


class ServerFiles(msgspec.Struct, frozen=True):
    """What `write_server_files` wrote: for the server, for Hansa's processes, and for its control planes alone."""

    configuration: Path
    credentials: Path
    operator: Path


def platform_credentials(by: Operator, at: int) -> str:
    """The credentials file of Hansa's processes."""
    user = by.platform_user
    return claims.credentials(claims.user(by.platform, user.public, "hansa", at=at), user.seed)


def server_options(by: Operator, at: int, accounts: Path | str) -> dict[str, Any]:
    """The part of a server's configuration that concerns accounts; `accounts` is the folder where it keeps those of tenants."""
    return {
        "operator": claims.operator(by, at),
        "system_account": by.system.public,
        "resolver": {"type": "full", "dir": str(accounts), "allow_delete": True, "interval": "2m"},
        # The newer one wins over what the folder has, so that a later version may say something else.
        "resolver_preload": {by.system.public: claims.system(by, at), by.platform.public: claims.platform(by, at)},
    }


def write_server_files(folder: Path, accounts: str) -> ServerFiles:
    """Write what a NATS server of one's own needs, readable by its owner alone; an operator that is there already stays. Raises
    `Misconfigured`.
    """
    files = ServerFiles(folder / "accounts.conf", folder / "platform.creds", folder / "operator.seed")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not files.operator.exists():
            _write(files.operator, new_key(Kind.OPERATOR).seed + "\n")
        operator, at = read_operator(str(files.operator)), int(clock.now().timestamp())
        _write(files.credentials, platform_credentials(operator, at))
        options = server_options(operator, at, accounts)
        _write(files.configuration, "".join(f"{name}: {msgspec.json.encode(value).decode()}\n" for name, value in options.items()))
    except OSError as error:
        raise Misconfigured(f"{error.filename or folder} can't be written: {error.strerror}", hint="Name a folder of your own.") from error
    return files


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)
