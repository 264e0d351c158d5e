"""The recorded histories: where they are, how they are read and written, and what replays them.

A file is one run that has ended, with all that its replay needs. Warning: files of a released version are never recorded again; they
are the promise that what ran then can be replayed now.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from uuid import UUID

import msgspec

from hansa.egress.client import open_client
from hansa.egress.policy import EgressPolicy
from hansa.plugins import loader
from hansa.plugins.model import Plugins
from hansa.runs.replay import History, Replay, replay_history
from hansa.secrets.variables import admitted
from hansa.settings import PluginSettings
from hansa.tenants.secrets.lookup import Lookup
from hansa.tools.servers import Connections, ToolServers
from hansa.tools.service import Surroundings

ROOT = Path(__file__).resolve().parent
WITNESS = EntryPoint("witness", "doubles.witness_plugin", loader.GROUP)


def files() -> list[Path]:
    """Every recorded history, of every version."""
    return sorted(ROOT.glob("*/*.json"))


def read(path: Path) -> History:
    return msgspec.json.decode(path.read_bytes(), type=History)


def write(path: Path, history: History) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(history), indent=1) + b"\n")


def plugins() -> Plugins:
    """What is installed, and the plugin with whose runtimes histories are recorded."""
    return loader.load(PluginSettings(), [*entry_points(group=loader.GROUP), WITNESS])


class Stage:
    """Replays histories with the code that is here. Use `open_stage`."""

    def __init__(self, surroundings: Surroundings, connections: Connections) -> None:
        self._surroundings = surroundings
        self._connections = connections

    async def replay(self, history: History, plugins: Plugins) -> Replay:
        return await replay_history(history, plugins, self._surroundings, self._connections)


@asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    """A stage on which nothing can be reached: no model, no database, and a workspace that is no folder."""
    async with open_client(EgressPolicy()) as http:
        servers = ToolServers(http, Lookup(admitted({}, "")))
        yield Stage(Surroundings(ROOT / "none", http, {}), Connections(servers, UUID(int=0)))
