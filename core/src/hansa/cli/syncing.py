"""`hansa sync`: what a repository says, applied once, or again and again until SIGTERM.

Must not be imported by any other command: it imports the server that receives webhooks.
"""

import asyncio
import os
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import structlog
from cyclopts import Parameter, validators

from hansa import ids, settings
from hansa.apply.repository.failures import Reason
from hansa.apply.sync.engine import Sync
from hansa.apply.sync.model import CHANGING, CONTROL_PLANE_AWAY, REFUSED, SYNCED, Report
from hansa.apply.sync.service import Pace, Service
from hansa.cli.client import Api, open_api
from hansa.cli.connection import Connection
from hansa.cli.output import describe, say, write
from hansa.cli.repositories import FOLDER_HELP, Repository, open_source
from hansa.cli.sync_api import SourceApi
from hansa.cli.usage import UsageError
from hansa.cli.webhook import Receiver
from hansa.errors import Forbidden, Invalid, Unavailable
from hansa.server.listening import serve_http
from hansa.settings import Settings
from hansa.telemetry.logs import configure

log = structlog.stdlib.get_logger("hansa.sync")
_EXITS = {SYNCED: 0, CONTROL_PLANE_AWAY: Unavailable.exit_code, REFUSED: Forbidden.exit_code}
_AWAY = (Reason.UNREACHABLE, Reason.DAMAGED)


@Parameter(name="*", group="Service")
@dataclass(frozen=True)
class Serving:
    """How `hansa sync` goes on."""

    once: Annotated[bool, Parameter(negative=(), help="One pass, and then the end; its exit status says how it went.")] = False
    interval: Annotated[float, Parameter(help="Seconds between two looks.", validator=validators.Number(gte=0.2, lte=86_400))] = 60.0
    resync: Annotated[
        float, Parameter(help="Seconds after which everything is applied again, about.", validator=validators.Number(gte=1, lte=604_800))
    ] = 600.0
    webhook: Annotated[str, Parameter(help="HOST:PORT to serve /livez, /readyz and /webhook on; left out: nothing is served.")] = ""
    webhook_secret_file: Annotated[str, Parameter(help="File with the secret that callers of /webhook show.")] = ""


def sync(
    folder: Annotated[Path | None, Parameter(help=FOLDER_HELP)] = None,
    *,
    repository: Repository | None = None,
    serving: Serving | None = None,
    allow_mass_delete: Annotated[bool, Parameter(negative=(), help="Delete also many objects at once, Tenants and Regions.")] = False,
    connection: Connection | None = None,
) -> int:
    """Make the platform what files say, and keep it so: apply what differs, delete what this source owns and no longer says."""
    serving = serving or Serving()
    if serving.webhook_secret_file and not serving.webhook:
        raise UsageError("--webhook-secret-file is for --webhook HOST:PORT")
    if serving.once and serving.webhook:
        raise UsageError("--once and --webhook contradict each other: one pass waits for nobody")
    with open_api(connection or Connection()) as api:
        if serving.once:
            return asyncio.run(_once(api, folder, repository, allow_mass_delete=allow_mass_delete, connection=connection))
        asyncio.run(_serve(api, folder, repository, serving, allow_mass_delete=allow_mass_delete, connection=connection))
        return 0


async def _once(
    api: Api, folder: Path | None, repository: Repository | None, *, allow_mass_delete: bool, connection: Connection | None
) -> int:
    async with open_source(folder, repository, connection) as source:
        # No later pass makes good what others changed meanwhile, though the commit be the same.
        report = await Sync(source, SourceApi(api, source.origin), allow_mass_delete=allow_mass_delete).once(full=True)
    _show(report)
    return exit_of(report)


def exit_of(report: Report) -> int:
    """The exit status that says how a pass went."""
    state = report.record.state
    if state in _EXITS:
        return _EXITS[state]
    if state in _AWAY:
        return Unavailable.exit_code
    return Invalid.exit_code if state in tuple(Reason) else 1


def _show(report: Report) -> None:
    for outcome in report.outcomes:
        if outcome.action not in ("unchanged", "failed", "absent"):
            write(f"{outcome.kind.lower()}/{outcome.name} {outcome.action}{f' in tenant {outcome.tenant}' if outcome.tenant else ''}\n")
        if outcome.note:
            say(f"  {outcome.kind.lower()}/{outcome.name}: {outcome.note}", style="yellow")
    for error in report.record.errors:
        say(describe(error), style="red")
    for waiting in report.waiting:
        say(waiting, style="yellow")
    record = report.record
    say(f"{record.state}{f' at {record.commit[:12]}' if record.commit else ''}{f': {record.message}' if record.message else ''}")


async def _serve(
    api: Api,
    folder: Path | None,
    repository: Repository | None,
    serving: Serving,
    *,
    allow_mass_delete: bool,
    connection: Connection | None,
) -> None:
    found = settings.load(os.environ)
    listening = _listening(found, serving.webhook) if serving.webhook else None
    configure(found.log, process="sync", redact=str)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with open_source(folder, repository, connection) as source:
        passes = Sync(source, SourceApi(api, source.origin), allow_mass_delete=allow_mass_delete)
        service = Service(passes, Pace(serving.interval, serving.resync), drawn=ids.new_fraction)
        receiver = Receiver(service, serving.webhook_secret_file)
        work: list[Coroutine[Any, Any, None]] = [service.run(stopping, Teller(source.origin).tell)]
        if listening is not None:
            work.append(serve_http(receiver, listening, stopping))
        tasks = [asyncio.create_task(each, name=f"sync.{number}") for number, each in enumerate(work)]
        log.info("sync.started", origin=source.origin, ref=source.ref, interval=serving.interval)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.set()
            await asyncio.gather(*tasks)
    log.info("sync.stopped")


def _listening(found: Settings, text: str) -> Settings:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise UsageError(f"--webhook wants HOST:PORT, got {text!r}", hint="It looks like 0.0.0.0:8080 or [::]:8080.")
    return msgspec.structs.replace(found, server=msgspec.structs.replace(found.server, host=host.strip("[]"), port=int(port), fd=-1))


class Teller:
    """Writes to the log what is new, and not again what was said before."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._last: tuple[Any, ...] = ()

    def tell(self, report: Report) -> None:
        """One line for a pass that did or found something else than the one before."""
        record = report.record
        done = [outcome for outcome in report.outcomes if outcome.action in CHANGING]
        now = (record.state, record.commit, record.message, record.errors)
        if not done and now == self._last:
            return
        self._last = now
        tell = log.info if record.state == SYNCED else log.warning
        counts = {action: sum(outcome.action == action for outcome in report.outcomes) for action in (*CHANGING, "failed")}
        tell("sync.pass", origin=self._origin, state=record.state, commit=record.commit, message=record.message, read=report.read, **counts)
        for error in record.errors:
            log.warning("sync.error", place=describe(error), code=error.code)
