"""`hansa audit`: who changed what, all of it as a file, and whether it is as it was written, with a server or without one."""

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter, validators

from hansa.artifacts.folder import Folder
from hansa.audit.checkpoints import Outside
from hansa.audit.offline import verify_lines
from hansa.audit.signing import read_signer
from hansa.audit.verdict import Verdict
from hansa.cli.client import Json, open_api, part
from hansa.cli.connection import Connection
from hansa.cli.output import Column, OutputFlag, age, field, plain, say, short, show, show_value, write
from hansa.cli.usage import UsageError, time_of
from hansa.errors import Invalid, Unavailable

LAST_LINE = 4096
"""Bytes that surely hold the last line of an export."""
Since = Annotated[str, Parameter(help="Only from this time on, e.g. 2030-01-31T12:00.")]
Until = Annotated[str, Parameter(help="Only before this time.")]

_COLUMNS = (
    field("SEQ", "seq"),
    age("AGE", "at"),
    Column("WHO", lambda row: _who(part(dict(row), "actor"))),
    Column("FROM", lambda row: plain(part(dict(row), "origin").get("address"))),
    field("ACTION", "action"),
    field("TARGET", "target"),
    field("OUTCOME", "outcome"),
    Column("WHAT", lambda row: short(_what(dict(row)), 80)),
)

audit = App(name="audit")


@Parameter(name="*")
@dataclass(frozen=True)
class Wanted:
    """Which events are listed."""

    action: Annotated[str, Parameter(help="Only this action, such as key.made.")] = ""
    actor: Annotated[str, Parameter(help="Only by this caller, such as key:4f...")] = ""
    target: Annotated[str, Parameter(help="Only about this, such as Agent/greeter.")] = ""
    outcome: Annotated[Literal["done", "refused"] | None, Parameter(help="Only what ended so.")] = None


@audit.default
@audit.command(name="list")
def list_events(
    *,
    wanted: Wanted | None = None,
    since: Since = "",
    until: Until = "",
    limit: Annotated[int, Parameter(help="How many at most, the newest first.", validator=validators.Number(gte=1))] = 50,
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> None:
    """List who changed what in the tenant, the newest first; as JSON with all that was before and after."""
    asked = wanted or Wanted()
    filters = {"action": asked.action, "actor": asked.actor, "target": asked.target, "outcome": asked.outcome or ""}
    with open_api(connection or Connection()) as api:
        show(api.entries("/v1/audit-events", {**filters, **_times(since, until)}, limit), _COLUMNS, output)


@audit.command(name="export")
def export_events(*, since: Since = "", until: Until = "", connection: Connection | None = None) -> None:
    """Write the trail, or a piece of it, to stdout as JSON lines that `verify --file` can judge anywhere."""
    if sys.stdout.isatty():
        raise UsageError("an export is made for a file, not for a terminal", hint="hansa audit export > audit.jsonl")
    tail = b""
    with open_api(connection or Connection()) as api, api.download("/v1/audit-events:export", _times(since, until)) as pieces:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            tail = (tail + piece)[-LAST_LINE:]
    sys.stdout.buffer.flush()
    if b'{"end":' not in tail.rstrip(b"\n").rpartition(b"\n")[2]:
        raise Unavailable("the export broke off", hint="Its last line is no end: try again.")


@audit.command(name="verify")
def verify(
    *,
    file: Annotated[str, Parameter(help="An export, - for stdin: no server is asked.", allow_leading_hyphen=True)] = "",
    checkpoints: Annotated[Path | None, Parameter(help="With --file: the folder where the checkpoints lie.")] = None,
    public_key: Annotated[tuple[str, ...], Parameter(negative=(), help="With --checkpoints: a key to believe; may be given again.")] = (),
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> int:
    """Look at every row of the trail, and say which is the first that is not as it was written; status 1 when there is one."""
    if not file and (checkpoints is not None or public_key):
        raise UsageError(
            "--checkpoints and --public-key go with --file", hint="A server has its own: HANSA_AUDIT_URL, HANSA_AUDIT_PUBLIC_KEYS."
        )
    if checkpoints is not None and not checkpoints.is_dir():
        raise UsageError(f"{checkpoints} is not a folder")
    if file:
        outside = None if checkpoints is None else Outside(Folder(checkpoints, variable="--checkpoints"))
        verdict = asyncio.run(verify_lines(_lines(file), outside, frozenset(key.lower() for key in public_key)))
    else:
        with open_api(connection or Connection()) as api:
            verdict = msgspec.convert(api.get("/v1/audit-events:verify"), Verdict)
    if output != "table":
        show_value(msgspec.to_builtins(verdict), output)
    else:
        _tell(verdict)
    return 0 if verdict.ok else 1


@audit.command(name="public-key")
def public_key_of(key_file: Path) -> None:
    """Show the public key of a key file (HANSA_AUDIT_KEY_FILE), with which others verify checkpoints.

    Parameters
    ----------
    key_file
        The file with the secret, which is not shown.
    """
    signer = read_signer(str(key_file))
    if signer is not None:
        write(f"{signer.public_key}\n")


def _times(since: str, until: str) -> dict[str, str]:
    return {"since": time_of(since, "--since") if since else "", "until": time_of(until, "--until") if until else ""}


def _lines(file: str) -> Iterable[bytes]:
    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as source:
            yield from source
    except OSError as error:
        raise Invalid(f"{file} can't be read: {error.strerror}") from error


def _tell(verdict: Verdict) -> None:
    rows = f"rows {verdict.first} to {verdict.last}" if verdict.rows else "no rows"
    if verdict.finding is not None:
        write(f"BROKEN at row {verdict.finding.seq} ({verdict.finding.kind}): {verdict.finding.detail}\n")
    else:
        write(f"whole: {rows}, each as it was written\n")
        if verdict.checkpoint is not None:
            write(f"borne out up to row {verdict.sealed} by a checkpoint of {verdict.checkpoint.made_at} in {verdict.place}\n")
    for warning in verdict.warnings:
        say(f"warning: {warning}")


def _who(actor: Json) -> str:
    where = f" of {actor['tenant']}" if actor.get("tenant") else ""
    whom = f" for {actor['on_behalf_of']}" if actor.get("on_behalf_of") else ""
    return f"{actor.get('name', '')}{where}{whom}"


def _what(row: Json) -> str:
    if row.get("reason"):
        return str(row["reason"])
    before, after = row.get("before"), row.get("after")
    return f"{plain(before)} -> {plain(after)}" if before is not None and after is not None else plain(after if before is None else before)
