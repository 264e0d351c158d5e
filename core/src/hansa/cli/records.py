"""`hansa runs`, `hansa sessions`, `hansa logs`: what has happened and what is happening."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter, validators

from hansa.cli.approvals import asked
from hansa.cli.client import Api, Json, open_api, part, segment
from hansa.cli.connection import Connection
from hansa.cli.following import DROPPED, Happening, follow
from hansa.cli.output import Column, Output, OutputFlag, age, field, literal, moment, plain, say, short, show, show_value, write
from hansa.cli.usage import UsageError
from hansa.cli.waits import standing
from hansa.errors import Invalid, NotFound, Unavailable

LAST_LINE = 4096
"""Bytes that surely hold the last line of an export."""
State = Literal["queued", "running", "waiting", "suspended", "completed", "failed", "canceled", "needs_review"]
Limit = Annotated[int, Parameter(help="How many at most, the newest first.", validator=validators.Number(gte=1))]

_RUN_COLUMNS = (
    field("ID", "id"),
    field("AGENT", "agent"),
    field("STATE", "state"),
    Column("TOKENS", lambda row: _tokens(dict(row))),
    age("AGE", "created_at"),
    Column("OUTPUT", lambda row: short(standing(dict(row)) or _result(dict(row)), 60)),
)
_SESSION_COLUMNS = (
    field("ID", "id"),
    field("AGENT", "agent"),
    field("EVENTS", "last_seq"),
    field("RUN NOW", "active_run"),
    age("AGE", "created_at"),
)

runs = App(name="runs")
sessions = App(name="sessions")


@runs.default
def list_runs(
    *,
    agent: Annotated[str, Parameter(help="Only runs of this agent.")] = "",
    state: Annotated[State | None, Parameter(help="Only runs in this state.")] = None,
    session: Annotated[str, Parameter(help="Only runs of this session.")] = "",
    limit: Limit = 50,
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> None:
    """List runs, the newest first; the other commands take the id of one."""
    with open_api(connection or Connection()) as api:
        query = {"agent": agent, "state": state or "", "session_id": session}
        show(api.entries("/v1/runs", query, limit), _RUN_COLUMNS, output)


@runs.command(name="show")
def show_run(run_id: str, *, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """Show everything about one run."""
    with open_api(connection or Connection()) as api:
        show_value(api.get(f"/v1/runs/{segment(run_id)}"), output)


for _verb, _help in (
    ("cancel", "Ask a run to stop; what it has done stays recorded."),
    ("suspend", "Hold a run until it is resumed."),
    ("resume", "Let a suspended run go on, or decide about a call in doubt."),
    ("fork", "Start a new run that has done what a run had done up to an event."),
    ("replay", "Run the agent's code again over the recorded log, and compare."),
):
    runs.command(f"hansa.cli.control:{_verb}", name=_verb, help=_help)
sessions.command("hansa.cli.control:send", name="send", help="Send an event that a run of the session waits for.")


@sessions.default
def list_sessions(*, limit: Limit = 50, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """List sessions, the newest first; `show` takes the id of one."""
    with open_api(connection or Connection()) as api:
        show(api.entries("/v1/sessions", {}, limit), _SESSION_COLUMNS, output)


@sessions.command(name="show")
def show_session(session_id: str, *, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """Show everything about one session; its events are what `hansa logs` prints."""
    with open_api(connection or Connection()) as api:
        show_value(api.get(f"/v1/sessions/{segment(session_id)}"), output)


@sessions.command(name="export")
def export_session(session_id: str, *, connection: Connection | None = None) -> None:
    """Write a session with its whole log to stdout, as JSON lines that `import` reads."""
    if sys.stdout.isatty():
        raise UsageError("an export is made for a file, not for a terminal", hint=f"hansa sessions export {session_id} > session.jsonl")
    tail = b""
    with open_api(connection or Connection()) as api, api.download(f"/v1/sessions/{segment(session_id)}/export") as pieces:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            tail = (tail + piece)[-LAST_LINE:]
    sys.stdout.buffer.flush()
    last = tail.rstrip(b"\n").rpartition(b"\n")[2]
    if b'"end":{"lines":' not in last:
        raise Unavailable(f"the export broke off: {last.decode(errors='replace')}", hint="What was written can't be imported.")


@sessions.command(name="import")
def import_session(
    file: Annotated[str, Parameter(help="What `export` wrote; - is stdin.", allow_leading_hyphen=True)] = "-",
    *,
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> None:
    """Make a session of an export, under the same id. Runs that had not ended are canceled."""
    try:
        archive = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise Invalid(f"{file} can't be read: {error.strerror}") from error
    with open_api(connection or Connection()) as api:
        session = api.upload("/v1/sessions:import", archive, "application/jsonl")
    if output != "table":
        show_value(session, output)
    else:
        say(f"session {session['id']}: {session['last_seq']} events")


def logs(
    target: str,
    *,
    follow_on: Annotated[bool, Parameter(name=("--follow", "-f"), negative=(), help="Go on with events as they happen.")] = False,
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> None:
    """Print the events of a session or of a run, one a line (as JSON: one object a line).

    Parameters
    ----------
    target
        Id of a session or of a run.
    """
    with open_api(connection or Connection()) as api:
        session, run = _find(api, target)
        happenings = follow(api, session, after=0, until=run) if follow_on else _past(api, session)
        for happening in happenings:
            if happening.type == DROPPED:
                say("connection lost, trying again")
            elif happening.seq and run in ("", happening.data.get("run_id")):
                _print_event(happening.data, output)


def _find(api: Api, target: str) -> tuple[str, str]:
    """The session and the run that an id names; no run when it is the id of a session."""
    try:
        run = api.get(f"/v1/runs/{segment(target)}")
    except NotFound:
        try:
            return str(api.get(f"/v1/sessions/{segment(target)}")["id"]), ""
        except NotFound:
            raise NotFound(
                f"there is no session and no run with the id {target}", hint="`hansa runs` and `hansa sessions` list them."
            ) from None
    return str(run["session_id"]), str(run["id"])


def _past(api: Api, session: str) -> Iterator[Happening]:
    after = 0
    more = True
    while more:
        page = api.get(f"/v1/sessions/{segment(session)}/events", {"after": str(after), "limit": "200"})
        for event in page["data"]:
            after = int(event["seq"])
            yield Happening(event["type"], after, event)
        more = bool(page["has_more"]) and bool(page["data"])


def _print_event(event: Json, output: Output) -> None:
    if output == "json":
        write(msgspec.json.encode(event).decode() + "\n")
    elif output == "yaml":
        write("---\n")
        show_value(event, output)
    else:
        time = moment(str(event["at"])).astimezone().strftime("%H:%M:%S")
        step = f" {event['step']}" if event.get("step") is not None else ""
        write(f"{time} {event['seq']:>4} {event['type']}{step} {short(_told(event), 160)}".rstrip() + "\n")


def _told(event: Json) -> str:
    """What an event says, in short."""
    data = part(event, "data")
    match event["type"]:
        case "model.completed":
            return plain(data.get("text") or data.get("tool_calls"))
        case "tool.called":
            return f"{data.get('name')} {plain(data.get('arguments'))}"
        case "tool.completed":
            return plain(data.get("content"))
        case "log" | "log.message":
            return plain(data.get("message"))
        case "approval.requested":
            return f"{data.get('approval_id')} {asked(data)}"
        case "approval.decided":
            return " ".join(literal(data[name]) for name in ("decision", "by", "comment", "answer") if data.get(name) is not None)
        case "run.queued":
            return plain(data.get("input")) + _by(part(data, "by"))
        case "run.completed":
            return plain(data.get("output"))
        case "run.failed":
            return _failure(part(data, "error"))
        case _:
            return plain(data) if data else ""


def _by(starter: Json) -> str:
    """Who started a run, where that is more than the key it was started with."""
    user = starter.get("on_behalf_of")
    if not user and starter.get("kind") in (None, "key"):
        return ""
    return f" (by {starter['name']}{f' for {user}' if user else ''})"


def _tokens(run: Json) -> str:
    usage = part(run, "usage")
    return f"{usage.get('input_tokens', 0)}+{usage.get('output_tokens', 0)}" if usage else "-"


def _result(run: Json) -> str:
    error = part(run, "error")
    return _failure(error) if error else plain(run.get("output"))


def _failure(error: Json) -> str:
    return f"{error.get('code', '')}: {error.get('detail', '')}"
