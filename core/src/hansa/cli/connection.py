"""Where the API is and with which key to go there: from flags, the environment, or the data folder of a local `hansa up`.

Must not know any command. Warning: the key of a data folder is only ever sent to the server of that folder.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from hansa import settings
from hansa.cli import logins
from hansa.egress.local import SYSTEM, Trust
from hansa.errors import Invalid, Misconfigured, Unauthenticated, Unavailable

DEFAULT_DATA = ".hansa"


# A dataclass and not a Struct: cyclopts makes options of the fields of dataclasses only.
@Parameter(name="*", group="Connection")
@dataclass(frozen=True)
class Connection:
    """Options that every command shares which asks the API."""

    url: Annotated[str, Parameter(help="Address of the API (HANSA_URL); left out: that of the data folder.")] = ""
    api_key_file: Annotated[str, Parameter(help="File with the API key (HANSA_API_KEY holds the key, HANSA_API_KEY_FILE the file).")] = ""
    tenant: Annotated[str, Parameter(help="Tenant to act in (HANSA_TENANT), for keys that may act in any; left out: the key's.")] = ""
    on_behalf_of: Annotated[str, Parameter(help="End user to name as the one acted for (HANSA_ON_BEHALF_OF); needs a permission.")] = ""
    data: Annotated[str, Parameter(help="Data folder of a local `hansa up` (HANSA_DATA_DIR), by default .hansa.")] = ""


class Target(msgspec.Struct, frozen=True):
    """A server and the key for it, where each of them was found, for messages, the tenant to act in, if not the key's, and
    the end user to name."""

    url: str
    key: str
    url_source: str
    key_source: str
    tenant: str = ""
    on_behalf_of: str = ""
    trust: Trust = SYSTEM


class Server(msgspec.Struct, frozen=True):
    """A server, where its address was found, and what its data folder says, if it is that of one."""

    url: str
    source: str
    ready: "Ready | None"


class Ready(msgspec.Struct, frozen=True):
    """What the data folder of a running server says of it (`ready.json`)."""

    url: str
    api_key_file: str


def data_dir(connection: Connection, environ: Mapping[str, str] = os.environ) -> Path:
    """The data folder that is meant."""
    return Path(connection.data or environ.get("HANSA_DATA_DIR", "") or DEFAULT_DATA)


def server(connection: Connection, environ: Mapping[str, str] = os.environ) -> Server:
    """The server that is meant. Raises `Unavailable` when there is none."""
    folder = data_dir(connection, environ)
    ready = read_ready(folder)
    told = settings.client(environ)
    url, url_source = connection.url, "--url"
    if not url:
        url, url_source = told.url, "HANSA_URL"
    if not url and ready is not None:
        url, url_source = ready.url, str(folder / "ready.json")
    url = url.rstrip("/")
    if not url:
        raise Unavailable(
            f"no Hansa server was found: --url is not given, HANSA_URL is not set, and there is no {folder / 'ready.json'}",
            hint="Start one here with `hansa up --detach`, or name one with --url or --data.",
        )
    return Server(url, url_source, ready if ready is not None and ready.url.rstrip("/") == url else None)


def find(connection: Connection, environ: Mapping[str, str] = os.environ) -> Target:
    """The server and key to use. Raises `Unavailable` when there is no server, `Unauthenticated` when there is no key."""
    told, meant = settings.client(environ), server(connection, environ)
    url = meant.url
    key, key_source = _key(connection, environ, meant)
    if not key:
        raise Unauthenticated(
            f"no API key for {url}: HANSA_API_KEY is not set, and no --api-key-file or HANSA_API_KEY_FILE names a file with one",
            hint="`hansa login` needs none. The key that belongs to a data folder is only used for the server of that folder.",
        )
    tenant = _header("a tenant", connection.tenant or told.tenant)
    user = _header("an end user", connection.on_behalf_of or told.on_behalf_of)
    return Target(url, key, meant.source, key_source, tenant, user, Trust(told.ca_file, told.cert_file, told.key_file))


def _header(what: str, text: str) -> str:
    """A text that goes into a header."""
    if text and (not text.isascii() or not text.isprintable() or " " in text):
        raise Invalid(f"{text!r} is no name of {what}")
    return text


def read_ready(folder: Path) -> Ready | None:
    """What `ready.json` says, or None when there is none. Raises `Misconfigured` when it can't be understood."""
    path = folder / "ready.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Ready)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise Misconfigured(f"{path} can't be read: {error}", hint="`hansa down` and `hansa up` write it anew.") from error


def _key(connection: Connection, environ: Mapping[str, str], meant: Server) -> tuple[str, str]:
    if connection.api_key_file:
        return _key_in(Path(connection.api_key_file)), connection.api_key_file
    if settings.client(environ).api_key:
        return _checked(settings.client(environ).api_key, "the variable HANSA_API_KEY"), "HANSA_API_KEY"
    if environ.get("HANSA_API_KEY_FILE"):
        return _key_in(Path(environ["HANSA_API_KEY_FILE"])), environ["HANSA_API_KEY_FILE"]
    token = logins.token(logins.place(environ), meant.url)
    if token:
        return token, "the log-in there"
    if meant.ready is not None:
        return _key_in(Path(meant.ready.api_key_file)), meant.ready.api_key_file
    return "", ""


def _key_in(path: Path) -> str:
    try:
        return _checked(path.read_text("utf-8"), f"the API key file {path}")
    except OSError as error:
        raise Unauthenticated(f"the API key file {path} can't be read: {error}") from error
    except UnicodeDecodeError:
        raise Unauthenticated(f"the API key file {path} holds no key: it is not text") from None


def _checked(text: str, source: str) -> str:
    """A text as the key that it is. What it holds is never said: it may be a key with a slip in it."""
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise Unauthenticated(f"{source} holds no key", hint="A key is one word of letters, digits and underscores, on one line.")
    return key
