"""Who is logged in where: the tokens of log-ins, in a file that only this person can read, renewed before they end.

Two commands at once renew one after the other: a refresh token is good once.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hansa import settings
from hansa.cli import provider
from hansa.errors import Misconfigured, Unauthenticated

EARLY_SECONDS = 30.0


class Login(msgspec.Struct, frozen=True):
    """One log-in. `expires_at`: seconds since 1970."""

    issuer: str
    client_id: str
    token_endpoint: str
    access_token: str
    expires_at: float
    refresh_token: str = ""
    revocation_endpoint: str = ""


def made(at: provider.Endpoints, client_id: str, tokens: provider.Tokens) -> Login:
    """The log-in that was granted just now."""
    return Login(
        issuer=at.issuer,
        client_id=client_id,
        token_endpoint=at.token_endpoint,
        access_token=tokens.access_token,
        expires_at=time.time() + tokens.expires_in,
        refresh_token=tokens.refresh_token,
        revocation_endpoint=at.revocation_endpoint,
    )


def place(environ: Mapping[str, str] = os.environ) -> Path:
    """The file of log-ins."""
    told = settings.client(environ).logins_file
    if told:
        return Path(told)
    home = environ.get("XDG_CONFIG_HOME", "") or Path(environ.get("HOME", "~")).expanduser() / ".config"
    return Path(home) / "hansa" / "logins.json"


def token(file: Path, url: str) -> str:
    """The access token for a server, renewed if it is about to end; empty: nobody is logged in there. Raises `HansaError`."""
    found = _read(file).get(url)
    if found is None or found.expires_at - time.time() > EARLY_SECONDS:
        return "" if found is None else found.access_token
    with _locked(file):
        found = _read(file).get(url)  # another command may have renewed it meanwhile, or logged out
        if found is None or found.expires_at - time.time() > EARLY_SECONDS:
            return "" if found is None else found.access_token
        if not found.refresh_token:
            raise Unauthenticated(f"the log-in at {url} has ended", hint="Run `hansa login` again, or `hansa logout`.")
        tokens = provider.renew(found.token_endpoint, found.client_id, found.refresh_token)
        renewed = msgspec.structs.replace(
            found,
            access_token=tokens.access_token,
            expires_at=time.time() + tokens.expires_in,
            refresh_token=tokens.refresh_token or found.refresh_token,
        )
        _write(file, {**_read(file), url: renewed})
        return renewed.access_token


def keep(file: Path, url: str, login: Login) -> None:
    """Keep a log-in; it replaces the one before."""
    with _locked(file):
        _write(file, {**_read(file), url: login})


def forget(file: Path, url: str) -> Login | None:
    """Forget the log-in at a server; what it was."""
    if not file.exists():
        return None
    with _locked(file):
        known = _read(file)
        found = known.pop(url, None)
        _write(file, known)
        return found


def _read(file: Path) -> dict[str, Login]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Login])
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise Misconfigured(f"the file of log-ins {file} can't be read: {error}", hint="Remove it, and log in again.") from error


def _write(file: Path, logins: dict[str, Login]) -> None:
    """Write so that it is never readable by others, not even for a moment, and never half there."""
    new = file.with_name(file.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(msgspec.json.format(msgspec.json.encode(logins)))
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file.with_name(file.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Misconfigured(
            f"the log-in can't be kept at {file}: {error.strerror}", hint="HANSA_LOGINS_FILE names another place."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
