"""What the environment says of Git: credentials by file or variable, trust, and hosts that may be asked although private.

Read by the command line alone; the control plane and workers never speak Git.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from hansa.errors import FieldError, Misconfigured
from hansa.settings import env, group


class GitSettings(msgspec.Struct, frozen=True):
    """How repositories are read by `hansa sync`, `plan`, `diff` and `validate`."""

    username: Annotated[str, env("HANSA_GIT_USERNAME")] = "git"
    """User name that goes with the password over https; with a token as password most servers take any."""
    password: Annotated[str, env("HANSA_GIT_PASSWORD")] = ""
    """Password or token for https; sent to the host of the repository's URL and to no other. Better in a file."""
    password_file: Annotated[str, env("HANSA_GIT_PASSWORD_FILE")] = ""
    """File with that password or token; read at every connection, so that it may be renewed."""
    ssh_key_file: Annotated[str, env("HANSA_GIT_SSH_KEY_FILE")] = ""
    """Private key for ssh, and no other then; empty: those of the `ssh` program and its agent."""
    known_hosts_file: Annotated[str, env("HANSA_GIT_SSH_KNOWN_HOSTS_FILE")] = ""
    """Host keys that ssh believes, and no others then; empty: those of the `ssh` program. An unknown host is never believed."""
    ca_file: Annotated[str, env("HANSA_GIT_CA_FILE")] = ""
    """PEM file of the certificate authority of a Git server, if it is a private one; empty: the system's trust."""
    allow: Annotated[str, env("HANSA_GIT_ALLOW")] = ""
    """Comma-separated hosts, host:port or CIDRs that may be asked by plain http, and that a server may redirect to although they are
    private. The host of the repository's own URL may be private without being listed."""
    allowed_signers_file: Annotated[str, env("HANSA_GIT_ALLOWED_SIGNERS_FILE")] = ""
    """ssh keys whose signatures `--verify` believes, in the form of ssh-keygen's allowed signers; read at every look."""
    allowed_openpgp_keys_file: Annotated[str, env("HANSA_GIT_ALLOWED_OPENPGP_KEYS_FILE")] = ""
    """OpenPGP keys whose signatures `--verify` believes, as `gpg --armor --export` writes them, one after the other; read at every look."""


class Login(msgspec.Struct, frozen=True):
    """A user name and a password for https."""

    username: str
    password: str

    def __repr__(self) -> str:
        """Without the password, which must not be printed by accident."""
        return f"Login({self.username!r})"


def load(environ: Mapping[str, str]) -> GitSettings:
    """Read the settings. Raises `Misconfigured`."""
    errors: list[FieldError] = []
    found = group(GitSettings, environ, errors)
    if errors or not isinstance(found, GitSettings):
        raise Misconfigured("; ".join(f"{each.path}: {each.message}" for each in errors), errors=tuple(errors))
    return found


def login(settings: GitSettings) -> Login | None:
    """The credential for https as it is now; None: there is none. Raises `Misconfigured`."""
    password = settings.password
    if settings.password_file:
        try:
            password = Path(settings.password_file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise Misconfigured(f"the password file {settings.password_file} can't be read: {why}") from error
    return Login(settings.username, password) if password else None
