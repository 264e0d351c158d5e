"""A program with a hatch reaches what door, tenant and agent let it reach, by the proxy alone; everything else stays shut."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cage.conftest import Targets, narrow
from cage.probes import got_through, program
from egress.conftest import listening
from egress.doubles import ListedResolver, Loopback, ok, redirect
from hansa.egress.narrowing import narrowed
from hansa.egress.policy import EgressPolicy
from hansa.egress.tunnel import Tunnels
from hansa.tools.cage.service import Cages, Narrower
from hansa_sdk import Caged, ToolFailed

GET = """
import sys, urllib.request, urllib.error
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
except OSError as error:
    print('failed', error)
"""
TUNNEL = """
import http.client, os, sys
host, port, address = sys.argv[1], int(sys.argv[2]), os.environ['https_proxy'].rpartition('/')[2]
connection = http.client.HTTPConnection(address, timeout=10)
connection.set_tunnel(host, port)
try:
    connection.request('GET', '/tunnelled')
    print(connection.getresponse().read().decode())
except OSError as error:
    print('failed', error)
"""


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    async with listening("127.0.0.1") as found:
        yield found


class Programs:
    """Runs programs with a hatch over a door that knows two names."""

    def __init__(self, server: Loopback, workspace: Path, max_bytes: int = 64 << 20) -> None:
        self.resolver = ListedResolver(api_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]], inside_test=[["10.0.0.1"]])
        allow = (f"127.0.0.1:{server.port}", "*.nowhere.test")
        door = EgressPolicy(allow_http=True, ports=(server.port, 443), allow=allow, max_bytes=max_bytes)
        self._cages = Cages(narrow(), Tunnels(door, self.resolver))
        self._workspace = workspace

    async def run(self, code: str, *arguments: str, network: bool = True) -> Caged:
        program = [self._cages.python, "-I", "-c", code, *arguments]
        return await self._cages.run(program, self._workspace, stdin="", narrower=Narrower(network=network))

    async def get(self, url: str) -> str:
        caged = await self.run(GET, url)
        assert (caged.status, caged.stderr) == (0, "")
        return caged.stdout.strip()


@pytest.fixture
def programs(server: Loopback, workspace: Path) -> Programs:
    return Programs(server, workspace)


async def test_a_request_and_a_tunnel_come_through(server: Loopback, programs: Programs) -> None:
    server.answers |= {"/x?y=1": ok(b"plainly"), "/tunnelled": ok(b"through the tunnel")}
    assert await programs.get(f"http://api.test:{server.port}/x?y=1") == "plainly"
    assert f"host: api.test:{server.port}\r\n" in server.heads[0].lower()
    assert "proxy" not in server.heads[0].lower()
    caged = await programs.run(TUNNEL, "api.test", str(server.port))
    assert caged.stdout == "through the tunnel\n"
    assert server.connections == 2


async def test_what_the_door_refuses_is_refused_with_its_words(server: Loopback, programs: Programs) -> None:
    for url, word in (
        ("http://inside.test:443/", "10.0.0.1"),
        (f"http://localhost:{server.port}/", "reserved_name"),
        ("http://169.254.169.254:443/latest/", "link-local"),
        (f"http://api.test:{server.port + 1}/", "port"),
        (f"http://user@api.test:{server.port}/", "userinfo"),
    ):
        said = await programs.get(url)
        assert said.startswith("403 ") or url.startswith("http://user@"), said
        assert word in said or url.startswith("http://user@"), said
    tunnel = await programs.run(TUNNEL, "inside.test", "443")
    assert "403" in tunnel.stdout
    assert server.connections == 0


async def test_the_lists_of_the_run_hold_for_its_programs(server: Loopback, programs: Programs) -> None:
    url = f"http://api.test:{server.port}/"
    with narrowed("the agent's list", ("other.test",)):
        assert "not_listed" in await programs.get(url)
        assert (await programs.run(TUNNEL, "api.test", str(server.port))).stdout.startswith("failed Tunnel connection failed: 403")
    assert server.connections == 0
    with narrowed("the agent's list", ("api.test",)):
        assert await programs.get(url) == "hit"


async def test_a_redirect_is_another_request(server: Loopback, programs: Programs) -> None:
    server.answers["/"] = redirect(f"http://other.test:{server.port}/there")
    with narrowed("the agent's list", ("api.test",)):
        assert "not_listed" in await programs.get(f"http://api.test:{server.port}/")
    assert len(server.heads) == 1


async def test_an_endless_answer_is_cut(server: Loopback, workspace: Path) -> None:
    server.answers["/"] = ok(b"x" * 5_000_000)
    programs = Programs(server, workspace, max_bytes=1_000_000)
    code = GET.replace(".read().decode()", ".read(9_000_000).__len__()", 1).replace("OSError", "Exception")
    said = (await programs.run(code, f"http://api.test:{server.port}/")).stdout
    assert said.startswith("failed") or int(said) <= 1_000_000


async def test_who_is_away_is_said(server: Loopback, programs: Programs) -> None:
    assert (await programs.get("http://gone.nowhere.test:443/")).startswith("502 ")
    nonsense = "import os, socket; s = socket.create_connection(('127.0.0.1', int(os.environ['http_proxy'].rpartition(':')[2])))\n"
    caged = await programs.run(f"{nonsense}s.sendall(b'hello\\r\\n\\r\\n'); print(s.recv(1000).decode().splitlines()[0])")
    assert caged.stdout == "HTTP/1.1 400 Refused\n"


async def test_without_a_hatch_there_is_no_proxy(server: Loopback, programs: Programs) -> None:
    caged = await programs.run(GET, f"http://api.test:{server.port}/", network=False)
    assert caged.stdout.startswith("failed")
    assert server.connections == 0


async def test_every_other_way_stays_shut(programs: Programs, targets: Targets) -> None:
    caged = await programs.run(program(**targets.words))
    # On a loopback of its own, with nobody else on it.
    assert got_through(caged.stdout) <= {"listen", "send by UDP"}, caged.stdout


async def test_where_there_is_no_network_of_its_own_nothing_is_run(server: Loopback, workspace: Path) -> None:
    cages = Cages(narrow(), Tunnels(EgressPolicy()), without=("network-namespace",))
    with pytest.raises(ToolFailed, match="does not hold network-namespace"):
        await cages.run(["true"], workspace, stdin="", narrower=Narrower(network=True))
    with pytest.raises(ToolFailed, match="no network"):
        await Cages(narrow()).run(["true"], workspace, stdin="", narrower=Narrower(network=True))
