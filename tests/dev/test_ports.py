"""Ports: one that is free, or a refusal that names who has it."""

import os
import socket

import pytest

from hansa.dev.failures import NoFreePort, PortRefused, PortTaken
from hansa.dev.ports import free_port, listen, require_free, url_host


def test_a_taken_port_is_refused_naming_it_and_its_holder() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1 is taken by process {os.getpid()} ") as refused:
            listen("127.0.0.1", port)
        assert "--port 0" in refused.value.hint
        assert refused.value.exit_code == 69
        with pytest.raises(PortTaken):
            require_free(port)
    require_free(port)


def test_the_only_free_port_of_a_range_is_found_and_then_none() -> None:
    start = free_port()
    with listen("127.0.0.1", start):
        with pytest.raises(NoFreePort, match=f"no free port on 127.0.0.1 from {start} to {start}"):
            free_port(range(start, start + 1))
        following = free_port(range(start, start + 50))
        assert start < following < start + 50
    assert free_port(range(start, start + 1)) == start


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(PortRefused, match=r"can't listen on 203\.0\.113\.1, port 7420: "):
        listen("203.0.113.1", 7420)


def test_a_listening_socket_takes_connections_before_anyone_serves() -> None:
    with listen("127.0.0.1", 0) as server, socket.create_connection(server.getsockname(), timeout=2) as client:
        assert client.getpeername() == server.getsockname()


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("box.example", "box.example")],
)
def test_a_url_names_a_host_one_can_connect_to(host: str, shown: str) -> None:
    assert url_host(host) == shown
