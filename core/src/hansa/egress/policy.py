"""What may be asked of the outside: a policy is data, and whoever opens a client brings one.

Knows nothing of where a policy comes from. Warning: an entry of `allow` wins over the default deny, so it belongs to the
operator: never fill it from what a model or a caller said.
"""

import ipaddress
import re

import msgspec

from hansa.errors import Misconfigured

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_REDIRECTS = 3
"""More hops than that are a loop or a maze."""

_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_HINT = "Write a host, `*.suffix`, an address or a network, each with `:port` or without; IPv6 with a port in brackets."


class AllowEntry(msgspec.Struct, frozen=True):
    """One entry of `allow`, parsed: either `network` or `name` is set. Without a port, the ports of the policy hold."""

    name: str | None = None
    network: Network | None = None
    port: int | None = None


class EgressPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The default refuses plain http, literal addresses, other ports than the usual, and all that is not on the public Internet.

    `allow` holds what wins over that, such as `127.0.0.1:11434`, `10.1.0.0/16`, `[fd00::5]:8080`, `vllm.models.svc:8000` or
    `*.corp.example`. An entry admits plain http; an entry with a port admits that port, one without keeps to `ports`. A name
    admits private and loopback answers of that name; link-local and metadata addresses only an address entry admits.
    Raises `Misconfigured` on an entry that can't be read.
    """

    allow_http: bool = False
    allow_literals: bool = False
    ports: tuple[int, ...] = (80, 443, 8080, 8443)
    allow: tuple[str, ...] = ()
    max_redirects: int = 0
    """Hops that are followed, each judged anew; 0 hands the 3xx answer to the caller. At most 3."""
    max_bytes: int = 64 * 1024 * 1024
    """Of one answer's body, on the wire and unpacked. Streams of a model stay far below."""
    connect_timeout: float = 5.0
    """Seconds for resolving the name and connecting, all addresses together."""
    read_timeout: float = 120.0
    """Seconds of silence that end a request. Models may think for long before the first byte."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_redirects <= MAX_REDIRECTS:
            raise Misconfigured(f"max_redirects is {self.max_redirects}", hint=f"It is between 0 and {MAX_REDIRECTS}.")
        if self.max_bytes <= 0:
            raise Misconfigured(f"max_bytes is {self.max_bytes}", hint="It is a positive number of bytes.")
        for entry in self.allow:
            parse_entry(entry)


def entries(text: str) -> tuple[str, ...]:
    """The entries of a comma-separated list, as settings have it."""
    return tuple(each.strip() for each in text.split(",") if each.strip())


def parse_entry(entry: str) -> AllowEntry:
    """Read one entry of `allow`. Raises `Misconfigured`."""
    host, port = _split_port(entry.strip().lower())
    try:
        return AllowEntry(network=ipaddress.ip_network(host), port=port)
    except ValueError as error:
        # A host whose last label is a number was meant as an address, so it is not silently taken for a name.
        if "/" in host or ":" in host or host.rsplit(".", 1)[-1].isdigit():
            raise Misconfigured(f"egress entry {entry!r}: {error}", hint=_HINT) from error
    if not _NAME.fullmatch(host):
        raise Misconfigured(f"egress entry {entry!r} is neither a host name nor an address", hint=_HINT)
    return AllowEntry(name=host, port=port)


def _split_port(entry: str) -> tuple[str, int | None]:
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::([0-9]{1,5}))?", entry)
    if bracketed:
        host, port = bracketed.group(1), bracketed.group(2)
    elif entry.count(":") == 1:
        host, port = entry.split(":")
    else:
        host, port = entry, None
    if port is None:
        return host, None
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise Misconfigured(f"egress entry {entry!r} has a bad port", hint=_HINT)
    return host, int(port)
