"""What tests of the command line share."""

from collections.abc import Iterator

import pytest

from cli.scripted_server import ScriptedServer
from hansa.cli.client import Api
from hansa.cli.connection import Target
from hansa.egress.local import open_local_client


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as scripted:
        yield scripted


@pytest.fixture
def api(server: ScriptedServer) -> Iterator[Api]:
    with open_local_client(server.url, {"authorization": "Bearer key-of-the-test"}, 5.0) as client:
        yield Api(client, Target(server.url, "key-of-the-test", "--url", "HANSA_API_KEY"))
