"""`hansa up`, `hansa down`, `hansa status`: everything on this machine, over one data folder."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter, validators

from hansa.cli.connection import Connection, data_dir
from hansa.cli.output import Column, OutputFlag, Row, say, show, show_value, write
from hansa.dev import instance
from hansa.dev import up as stack
from hansa.dev.instance import Down
from hansa.dev.up import UpOptions

DataFlag = Annotated[str, Parameter(help="Data folder (HANSA_DATA_DIR), by default .hansa.")]
PORT = validators.Number(gte=0, lte=65535)
_STOPPED_STATUS = 3
_MIB = 1024 * 1024


@Parameter(name="*")
@dataclass(frozen=True)
class Where:
    """Where `hansa up` listens and keeps its data."""

    data: DataFlag = ""
    host: Annotated[str, Parameter(help="Address that the API listens on.")] = "127.0.0.1"
    port: Annotated[int, Parameter(help="TCP port of the API; 0 takes a free one.", validator=PORT)] = 7420
    postgres_port: Annotated[int, Parameter(help="Port of the embedded PostgreSQL; 0 takes a free one.", validator=PORT)] = 0
    nats_port: Annotated[int, Parameter(help="Port of the embedded NATS; 0 takes a free one.", validator=PORT)] = 0


def up(
    *,
    where: Where | None = None,
    workers: Annotated[int, Parameter(help="Worker processes.", validator=validators.Number(gte=1, lte=64))] = 1,
    dedicated: Annotated[
        list[str] | None, Parameter(negative=(), help="Tenant that has a database to itself, on the same server; may be repeated.")
    ] = None,
    detach: Annotated[bool, Parameter(negative=(), help="Return when it is ready and let it run.")] = False,
) -> int:
    """Start PostgreSQL, NATS and Hansa on this machine, until Ctrl-C.

    With HANSA_DATABASE_URL or HANSA_NATS_URL set, yours is used instead.
    """
    where = where or Where()
    folder = data_dir(Connection(data=where.data))
    options = UpOptions(
        data=folder,
        host=where.host,
        port=where.port,
        postgres_port=where.postgres_port,
        nats_port=where.nats_port,
        workers=workers,
        dedicated=tuple(dedicated or ()),
        environ=dict(os.environ),
    )
    if not detach:
        return asyncio.run(stack.up(options, _report))
    try:
        ready = asyncio.run(instance.detach(options))
    except KeyboardInterrupt:
        say("stopped before it was ready; nothing of it runs on")
        raise
    write(f"{ready.url}\n")
    say(f"ready: documentation at {ready.url}/docs, API key in {ready.api_key_file}, stop it with `hansa down{data_flag(where.data)}`")
    return 0


def down(*, data: DataFlag = "") -> None:
    """Stop what `hansa up` started, and wait until it is gone. The data stay."""
    folder = data_dir(Connection(data=data))
    how = asyncio.run(instance.down(folder))
    say(f"{folder}: {how.value}")
    if how is Down.KILLED:
        say("It did not stop in time and was killed; the next start recovers.", style="yellow")


def status(*, data: DataFlag = "", output: OutputFlag = "table") -> int:
    """Show what `hansa up` started, and how it is; status 3 when nothing runs."""
    folder = data_dir(Connection(data=data))
    found = instance.status(folder)
    if output != "table":
        show_value(msgspec.to_builtins(found), output)
    elif not found.running:
        say(f"{folder}: nothing runs here; `hansa up{data_flag(data)}` starts it")
    else:
        write(f"{found.url or folder} {'ready' if found.ready else 'starting'}, process {found.pid}\n")
        show([msgspec.to_builtins(child) for child in found.children], _COLUMNS, output)
    return 0 if found.running else _STOPPED_STATUS


def data_flag(data: str | Path) -> str:
    """The option to add to a command so that it means the same data folder."""
    return f" --data {data}" if str(data) not in ("", ".hansa") else ""


def _report(stage: str, detail: str) -> None:
    say(f"{stage}: {detail}")


def _uptime(row: Row) -> str:
    return f"{float(row['uptime']):.0f}s" if row["alive"] else "down"


_COLUMNS = (
    Column("PROCESS", lambda row: str(row["name"])),
    Column("PID", lambda row: str(row["pid"])),
    Column("UP", _uptime),
    Column("RESTARTS", lambda row: str(row["restarts"])),
    Column("MEMORY", lambda row: f"{int(row['rss']) // _MIB} MiB"),
)
