"""Ports to listen on: a free one for a server, or the API's own listening socket.

Must not know which server it is for. Warning: a free port is only free until someone else takes it, so whoever is given one
still has to cope with losing it.
"""

import contextlib
import errno
import socket
import string

from hansa import ids
from hansa.dev import processes
from hansa.dev.failures import NoFreePort, PortRefused, PortTaken

LOOPBACK = "127.0.0.1"
SERVER_PORTS = range(20000, 32000)
"""Below the range from which systems draw the local ports of outgoing connections: a restarted server finds its port still free."""

BACKLOG = 512


def free_port(ports: range = SERVER_PORTS) -> int:
    """A port of loopback on which nobody listens, at a random place of the range. Raises `NoFreePort`."""
    start = int(ids.new_secret(6, string.digits))
    for step in range(len(ports)):
        port = ports[(start + step) % len(ports)]
        with contextlib.suppress(OSError), _bound(LOOPBACK, port):
            return port
    raise NoFreePort(
        f"no free port on {LOOPBACK} from {ports.start} to {ports.stop - 1}",
        hint="Stop what holds them, or use servers of your own: HANSA_DATABASE_URL, HANSA_NATS_URL.",
    )


def require_free(port: int) -> None:
    """Raises `PortTaken` or `PortRefused` unless one could listen on this port of loopback now."""
    listen(LOOPBACK, port).close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises `PortTaken` naming who holds it, `PortRefused` or `NoFreePort`."""
    try:
        bound = _bound(host, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise PortRefused(
                f"can't listen on {host}, port {port}: {error.strerror}",
                hint="Ports below 1024 need rights, and the address must be one of this machine: use --port and --host.",
            ) from error
        if port == 0:
            raise NoFreePort(f"the system has no free port on {host}", hint="Choose one with --port.") from error
        holder = processes.listener(port)
        who = f"process {holder} ({processes.command(holder)[:120]})" if holder else "another process"
        raise PortTaken(
            f"port {port} on {host} is taken by {who}", hint="Stop it, or choose another: --port N, or --port 0 for any free one."
        ) from error
    bound.listen(BACKLOG)
    return bound


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        # Two may be bound to one address as long as none listens: listening is what decides.
        bound.listen(1)
    except OSError:
        bound.close()
        raise
    return bound


def url_host(host: str) -> str:
    """The host as one connects to it and writes it in a URL: a wildcard address is reached over loopback."""
    if host in {"", "0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        return LOOPBACK if host != "::" else "[::1]"
    return f"[{host}]" if ":" in host else host
