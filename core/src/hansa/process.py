"""The one composition root: what each process of Hansa is made of. Everything is opened here, in order, and closed in reverse.

`serve` is the control plane, `worker` runs agents. Must not import the API: a worker has no use for a web framework.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import structlog
import uvloop

from hansa import ids
from hansa.artifacts.content import open_artifacts
from hansa.audit.keeper import keeping
from hansa.bus.accounts import open_accounts
from hansa.bus.connection import open_bus
from hansa.db import selfcheck
from hansa.db.pool import open_database
from hansa.egress.client import open_client, trusting
from hansa.egress.policy import EgressPolicy, entries
from hansa.egress.tunnel import Tunnels
from hansa.llm.service import open_gateway
from hansa.messages.courier import open_courier, queue_of
from hansa.messages.service import count_waiting
from hansa.plugins import loader
from hansa.runs.acceptor import Acceptor, open_acceptor
from hansa.runs.consumer import receivers
from hansa.runs.equipment import Equipment
from hansa.runs.housekeeping import open_housekeeping
from hansa.runs.log.keeping import Values
from hansa.runs.log.retention import Retention
from hansa.runs.participants import open_participants
from hansa.runs.worker import Worker
from hansa.runs.worlds import Worlds
from hansa.runs.writer import open_writer
from hansa.secrets.keyring import open_keyring
from hansa.secrets.redaction import Redactor
from hansa.secrets.variables import admitted
from hansa.server.listening import serve_http
from hansa.settings import Settings
from hansa.telemetry.alive import beating
from hansa.telemetry.logs import configure
from hansa.telemetry.scraping import showing
from hansa.telemetry.settings import load as metrics_settings
from hansa.tenants.messaging.service import Messaging
from hansa.tenants.secrets.lookup import Lookup
from hansa.tenants.secrets.service import TenantSecrets
from hansa.tenants.watching import watching
from hansa.tools.cage.service import Cages
from hansa.tools.servers import ToolServers
from hansa_sdk import SecretServices

log = structlog.stdlib.get_logger("hansa.process")
COLLECT_AT = 10_000
"""After so many more objects than were freed the collector looks among the youngest. At Python's own 700 it takes about a tenth of the
time of a busy worker; what runs and requests make is mostly freed without it."""
LAST_SECONDS = 2.0
"""How long a process waits at its end for tasks that were canceled."""


class CreateApp(Protocol):
    """Makes the ASGI application that is served, see `hansa.api.composition`; `stopping` says that the process is."""

    def __call__(self, equipment: Equipment, acceptor: Acceptor, messaging: Messaging, /, *, stopping: asyncio.Event) -> Any: ...


@asynccontextmanager
async def open_equipment(settings: Settings, *, process: str) -> AsyncIterator[Equipment]:
    """Everything a process works with, opened; `process` names it in logs and to NATS."""
    redactor = Redactor()
    configure(settings.log, process=process, redact=redactor.line)
    name = f"{process}-{socket.gethostname()}-{os.getpid()}-{ids.new_id().hex[-6:]}"
    data_dir = Path(settings.place.data_dir).resolve()
    plugins = loader.load(settings.plugins)
    for_tools = EgressPolicy(allow_http=settings.egress.allow_http, allow=entries(settings.egress.tools_allow), max_redirects=3)
    trust = trusting(settings.secrets.ca_file)
    cages = Cages(settings.cage, Tunnels(for_tools))
    async with (
        open_database(settings.database) as database,
        open_bus(settings.nats, name=name) as bus,
        open_artifacts(settings.artifacts, data_dir) as artifacts,
        open_client(EgressPolicy(allow_http=settings.egress.allow_http, allow=entries(settings.egress.allow))) as to_providers,
        open_client(for_tools) as to_the_web,
        open_client(EgressPolicy(allow_http=False, allow=entries(settings.secrets.allow)), tls=trust) as to_key_providers,
        open_keyring(
            plugins.key_providers,
            plugins.secret_sources,
            services=SecretServices(to_key_providers, settings.secret_options),
            current=settings.secrets.kek,
        ) as keyring,
    ):
        await selfcheck.check(database)
        secrets = TenantSecrets(database, keyring, redactor)
        lookup = Lookup(admitted(os.environ, settings.credentials.allow), secrets, redactor)
        values = Values(database, artifacts, settings.artifacts.from_bytes)
        async with (
            watching(database, settings.place.region),
            open_gateway(plugins, to_providers, data_dir, lookup=lookup) as gateway,
            open_writer(database, values, lease=settings.worker.lease_seconds) as writer,
        ):
            yield Equipment(
                database=database,
                bus=bus,
                plugins=plugins,
                gateway=gateway,
                http=to_the_web,
                tool_servers=ToolServers(to_providers, lookup),
                region=settings.place.region,
                worker=name,
                workspaces=data_dir / "workspaces",
                tool_settings=settings.tools,
                cages=cages,
                worlds=Worlds(database, plugins),
                writer=writer,
                values=values,
                artifacts=artifacts,
                secrets=secrets,
                lookup=lookup,
                retention=Retention(database, artifacts, settings.retention.days),
            )


async def serve(settings: Settings, create: CreateApp) -> None:
    """The control plane, until SIGTERM or SIGINT; then live streams are ended, so that their readers go to another replica."""
    stopping, shown = _stopping(), metrics_settings(os.environ)
    async with (
        open_equipment(settings, process="serve") as equipment,
        open_acceptor(equipment.database, equipment.bus, equipment.region) as acceptor,
        open_accounts(settings.nats, equipment.region, name=equipment.worker) as accounts,
        showing(equipment.metrics, shown.host, shown.serve_port),
    ):
        app = create(equipment, acceptor, Messaging(equipment.database, accounts), stopping=stopping)
        settle()
        await serve_http(app, settings, stopping)


def settle() -> None:
    """Say to the collector that all that was made so far stays, so that it need not look at it again and again, and that it may wait."""
    gc.freeze()
    gc.set_threshold(COLLECT_AT, *gc.get_threshold()[1:])


def _stopping() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a process on uvloop. When `main` has ended, everything is kept or handed over: a plugin that does not stop holds up no end."""

    async def to_its_end() -> None:
        await main
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left and (await asyncio.wait(left, timeout=LAST_SECONDS))[1]:
            log.warning("process.left_behind", tasks=sorted(task.get_name() for task in left if not task.done()))
            logging.shutdown()
            os._exit(0)

    uvloop.run(to_its_end())


async def worker(settings: Settings) -> None:
    """A worker, until SIGTERM or SIGINT; then it drains."""
    stopping, shown = _stopping(), metrics_settings(os.environ)
    async with (
        open_equipment(settings, process="worker") as equipment,
        open_courier(
            equipment.database,
            equipment.bus,
            receivers(equipment.region),
            settings.messages,
            region=equipment.region,
            replicas=settings.nats.replicas,
        ),
        open_housekeeping(
            equipment, settings, queue_of(equipment.bus, settings.messages, region=equipment.region, replicas=settings.nats.replicas)
        ),
        open_participants(equipment),
        keeping(equipment.database, settings),
        showing(equipment.metrics, shown.host, shown.worker_port, lambda: count_waiting(equipment.database, equipment.metrics)),
        beating(Path(settings.place.data_dir).resolve() / "run" / "worker.alive"),
    ):
        settle()
        cage = await equipment.cages.holding() if equipment.cages else None
        log.info("worker.started", worker=equipment.worker, plugins=equipment.plugins.loaded(), cage=cage.layers if cage else ())
        if cage is not None and (cage.missing or cage.trouble):
            log.warning("worker.cage_refuses", missing=cage.missing, trouble=cage.trouble, hint="No program is run. See `hansa doctor`.")
        await Worker(equipment, settings.worker, stopping).run()
