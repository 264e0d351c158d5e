"""`hansa run`: start a run and show what it says as it says it, or start one for each line of a file."""

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from hansa import ids
from hansa.cli import batch
from hansa.cli.client import Api, Json, open_api, part, segment
from hansa.cli.connection import Connection
from hansa.cli.following import DROPPED, follow
from hansa.cli.output import Output, OutputFlag, clean, plain, say, short, show_value, write
from hansa.cli.transcript import Shown, Transcript
from hansa.cli.usage import UsageError
from hansa.errors import HansaError

PATIENCE_SECONDS = 120.0
"""How long a server may be away while a run is under way: a restart takes seconds, an upgrade a minute."""


@Parameter(name="*")
@dataclass(frozen=True)
class RunOptions:
    """What `hansa run` is to do with the agent."""

    input_json: Annotated[str, Parameter(help="The input as JSON, instead of a text.")] = ""
    session: Annotated[str, Parameter(help="Go on in this session instead of a new one.")] = ""
    wait: Annotated[bool, Parameter(negative=("--no-wait", "--detached"), help="Show the run until it ends, or only start it.")] = True
    each_line: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="Start one run for each line of this file (- for stdin) that is not empty.")
    ] = ""
    concurrency: Annotated[int, Parameter(help="How many runs of --each-line at once.")] = 8
    column: Annotated[tuple[str, ...], Parameter(help="With --each-line: show only these fields of the output.")] = ()


def run(
    agent: str,
    text: str | None = None,
    *,
    options: RunOptions | None = None,
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> int:
    """Run an agent and show its answer as it is written.

    Parameters
    ----------
    agent
        Name of the agent.
    text
        What to say to it.
    """
    options = options or RunOptions()
    given = [
        name
        for name, there in (("TEXT", text is not None), ("--input-json", options.input_json), ("--each-line", options.each_line))
        if there
    ]
    if len(given) != 1:
        said = " and ".join(given) if given else "none of them"
        raise UsageError(f"an input is wanted: exactly one of TEXT, --input-json and --each-line; given: {said}")
    if options.each_line and (options.session or not options.wait):
        raise UsageError("--each-line starts a session of its own for each line and waits for all: leave out --session and --no-wait")
    with open_api(connection or Connection()) as api:
        if options.each_line:
            table = batch.Table(output, options.column)
            return batch.each_line(api, agent, options.each_line, concurrency=options.concurrency, table=table)
        return _one(api, agent, _input(text, options), options=options, output=output)


def _input(text: str | None, options: RunOptions) -> Any:
    if text is not None:
        return text
    try:
        return msgspec.json.decode(options.input_json)
    except msgspec.DecodeError as error:
        raise UsageError(f"--input-json is not JSON: {error}") from error


def _one(api: Api, agent: str, value: Any, *, options: RunOptions, output: Output) -> int:
    body: Json = {"input": value}
    after = 0
    if options.session:
        body["session_id"] = options.session
        after = int(api.get(f"/v1/sessions/{segment(options.session)}")["last_seq"])
    # The key makes it safe to ask again when the connection breaks before the answer is there.
    started = api.post(f"/v1/agents/{segment(agent)}/runs", body, key=str(ids.new_id()), patience=PATIENCE_SECONDS / 4)
    run_id = str(started["id"])
    if not options.wait:
        _show_started(started, output)
        return 0
    try:
        screen = _Screen(live=output == "table" and sys.stdout.isatty())
        for happening in follow(api, str(started["session_id"]), after=after, until=run_id, patience=PATIENCE_SECONDS):
            if happening.type == DROPPED or happening.data.get("run_id") == run_id:
                screen.take(happening.type, happening.data)
        finished = api.get(f"/v1/runs/{segment(run_id)}", patience=PATIENCE_SECONDS)
    except KeyboardInterrupt:
        say(f"\nleft running: {run_id}")
        _say_ways_on(run_id)
        raise
    except HansaError:
        say(f"run {run_id} goes on without this terminal")
        _say_ways_on(run_id)
        raise
    return _finish(finished, screen, output)


def _say_ways_on(run_id: str) -> None:
    say(f"follow it: hansa logs {run_id} --follow\ncancel it: hansa runs cancel {run_id}")


def _show_started(started: Json, output: Output) -> None:
    if output == "table":
        write(f"{started['id']}\n")
        _say_ways_on(started["id"])
    else:
        show_value(started, output)


def _finish(finished: Json, screen: "_Screen", output: Output) -> int:
    screen.end_line()
    completed = finished["state"] == "completed"
    if output != "table":
        show_value(finished, output)
    elif completed and not screen.has_shown(finished["output"]):
        write(_as_text(finished["output"]) + "\n")
    if completed:
        return 0
    say(f"run {finished['id']} {finished['state'].replace('_', ' ')}", style="red")
    error = part(finished, "error")
    if error:
        say(f"error: {error.get('code', '')}: {error.get('detail', '')}", style="red")
        if error.get("hint"):
            say(f"hint: {error['hint']}")
    elif finished["state"] == "needs_review":
        say(f"hint: `hansa logs {finished['id']}` shows the call that nobody knows the outcome of.")
    return 1


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _offset(data: Json) -> int | None:
    offset = data.get("offset")
    return offset if isinstance(offset, int) else None


class _Screen:
    """What the terminal shows of a run: answers on stdout as they come if `live`, everything else dim on stderr."""

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self._transcript = Transcript()
        self._within_line = False

    def take(self, kind: str, data: Json) -> None:
        """Show one happening of the run."""
        step = str(data.get("step"))
        inside = part(data, "data")
        match kind:
            case "delta":
                self._show(self._transcript.delta(step, str(data.get("text", "")), _offset(data)))
            case "delta.reset":
                self._show(self._transcript.reset(step))
            case "model.completed":
                self._show(self._transcript.recorded(step, str(inside.get("text") or "")))
                self.end_line()
            case "tool.called":
                self._note(f"{inside.get('name')}({short(plain(inside.get('arguments')), 100)})")
            case "tool.completed":
                mark = "failed" if inside.get("is_error") else "said"
                self._note(f"{inside.get('name')} {mark}: {short(plain(inside.get('content')), 120)}")
            case "log.message" | "log":
                self._note(str(inside.get("message", "")))
            case "run.resumed":
                self._note("taken over by another worker")
            case _ if kind == DROPPED:
                self._transcript.dropped()
                self._note("connection lost, trying again")
            case _:
                pass

    def has_shown(self, output: Any) -> bool:
        """Whether the final output stands on the screen already, as the last answer."""
        return self._live and bool(self._transcript.whole) and _as_text(output).strip() == self._transcript.whole.strip()

    def end_line(self) -> None:
        """Finish the line that the answer ended in."""
        if self._within_line:
            write("\n")
            self._within_line = False

    def _note(self, text: str) -> None:
        self.end_line()
        say(text, style="dim")

    def _show(self, shown: Shown) -> None:
        if not self._live:
            return
        if shown.restart:
            self._note("(the model began its answer anew)")
        text = clean(shown.text)
        if text:
            write(text)
            self._within_line = not text.endswith("\n")
