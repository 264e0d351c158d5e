"""Where a repository is: a URL as people write it, taken apart, and the text by which it is known everywhere else.

Pure. Warning: a URL with a password is refused without being repeated: it would end in logs, and stands in the list of processes.
"""

import ipaddress
import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import msgspec

from hansa.errors import Invalid

_SCP = re.compile(r"(?:(?P<user>[A-Za-z0-9._-]+)@)?(?P<host>[A-Za-z0-9._-]+):(?P<path>[^:].*)")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+@-]{0,250}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HINT = "It looks like https://git.example.org/team/agents.git, ssh://git@git.example.org/team/agents.git, or a folder."


class Location(msgspec.Struct, frozen=True):
    """A repository. `path` is its path on the host, or the absolute folder; `url` is for the client, `shown` for people and as its name."""

    scheme: str
    shown: str
    path: str
    url: str = ""
    host: str = ""
    port: int | None = None
    user: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return self.scheme == "file"


def locate(text: str) -> Location:
    """Take a URL, a `user@host:path` or a folder apart. Raises `Invalid`."""
    if not text or any(not letter.isprintable() for letter in text):
        raise Invalid("this is no URL of a repository: it is empty, or holds characters that can't be seen", hint=_HINT)
    if "://" in text:
        return _of_url(text)
    scp = _SCP.fullmatch(text)
    if scp is not None and not Path(text).exists():
        path = scp["path"] if scp["path"].startswith("/") else f"/~/{scp['path']}"
        return _ssh(scp["host"], None, scp["user"], path)
    return _folder(Path(text))


def _of_url(text: str) -> Location:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise Invalid("this is no URL of a repository: its host or port can't be read", hint=_HINT) from error
    if parts.password is not None or (parts.username is not None and parts.scheme != "ssh"):
        hint = "Put them in HANSA_GIT_USERNAME and HANSA_GIT_PASSWORD_FILE. What stood in the URL may have been seen: renew it."
        raise Invalid(f"the URL of the repository at {parts.hostname} holds a user name or password", hint=hint)
    if parts.query or parts.fragment:
        raise Invalid("the URL of a repository has no `?` and no `#`", hint="Name a branch or tag with --ref, a folder with --path.")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise Invalid(f"file://{parts.netloc}/... names another machine", hint="Write file:///folder, with three slashes.")
        return _folder(Path(unquote(parts.path)))
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else (parts.hostname or "")
    if not _HOST.fullmatch(host) or parts.path in ("", "/"):
        raise Invalid("the URL of a repository names a host and a path", hint=_HINT)
    if parts.scheme == "ssh":
        return _ssh(host, port, parts.username, unquote(parts.path))
    if parts.scheme not in ("https", "http"):
        raise Invalid(f"repositories are read by https, ssh or as a folder, not by {parts.scheme[:20]!r}", hint=_HINT)
    path = quote(unquote(parts.path).rstrip("/"), safe="/~+@:")
    shown = f"{parts.scheme}://{host}{f':{port}' if port else ''}{path}"
    return Location(parts.scheme, shown, path, shown, host, port)


def _ssh(host: str, port: int | None, user: str | None, path: str) -> Location:
    if not _HOST.fullmatch(host) or (user is not None and not _USER.fullmatch(user)):
        raise Invalid("the host or the user of this ssh URL holds characters that neither may hold", hint=_HINT)
    if path.lstrip("/").startswith("-") or any(not letter.isprintable() for letter in path):
        raise Invalid("the path of this ssh URL begins with `-`, or holds characters that can't be seen", hint=_HINT)
    path = path.rstrip("/")
    return Location("ssh", f"ssh://{host}{f':{port}' if port else ''}{quote(path, safe='/~+@:')}", path, "", host.strip("[]"), port, user)


def _folder(path: Path) -> Location:
    absolute = str(path.expanduser().resolve())
    return Location("file", f"file://{quote(absolute, safe='/~+@:')}", absolute)


def is_loopback(location: Location) -> bool:
    """Whether it is on this machine: by such an address, or the name `localhost`."""
    try:
        return ipaddress.ip_address(location.host.strip("[]")).is_loopback
    except ValueError:
        return location.host == "localhost"


def checked_ref(ref: str) -> str:
    """A branch, tag, `refs/...` or a commit's 40 digits; empty: what HEAD names. Raises `Invalid`."""
    bad = ".." in ref or "//" in ref or "@{" in ref or ref.endswith(("/", ".lock", "."))
    if ref and (not _REF.fullmatch(ref) or bad):
        raise Invalid(f"{ref[:60]!r} is no name of a branch or tag", hint="It looks like main, v1.2 or refs/heads/main.")
    return ref


def is_commit(ref: str) -> bool:
    """Whether a ref is a commit's own name."""
    return _COMMIT.fullmatch(ref) is not None


def checked_path(path: str) -> str:
    """A folder inside a repository, without slashes at its ends; empty: all of it. Raises `Invalid`."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or any(not letter.isprintable() for letter in path) or "\\" in path:
        raise Invalid(f"{path[:60]!r} is no folder inside a repository", hint="Write it from the top, as in tenants/acme.")
    return "/".join(parts)


def origin_of(location: Location, path: str) -> str:
    """By which objects know the source that they came from: `URL//path`."""
    return f"{location.shown}//{path}"
