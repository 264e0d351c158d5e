"""`hansa run`: start a run and show what it says as it says it, or start one for each line of a file."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter, validators

from hansa.cli import batch
from hansa.cli.client import Api, Json, open_api, segment
from hansa.cli.connection import Connection
from hansa.cli.output import Output, OutputFlag, say
from hansa.cli.usage import UsageError, json_value, time_of
from hansa.cli.waits import standing
from hansa.cli.watching import show_started, watch


@Parameter(name="*")
@dataclass(frozen=True)
class RunOptions:
    """What `hansa run` is to do with the agent."""

    input_json: Annotated[str, Parameter(help="The input as JSON, instead of a text.")] = ""
    session: Annotated[str, Parameter(help="Go on in this session instead of a new one.")] = ""
    wait: Annotated[bool, Parameter(negative=("--no-wait", "--detached"), help="Show the run until it ends, or only start it.")] = True
    priority: Annotated[int, Parameter(help="Which runs come first: -100 to 100.", validator=validators.Number(gte=-100, lte=100))] = 0
    start_at: Annotated[
        str, Parameter(help="Not before this time, e.g. 2030-01-31T08:00 (here) or 2030-01-31T08:00Z; in a session of its own.")
    ] = ""
    each_line: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="Start one run for each line of this file (- for stdin) that is not empty.")
    ] = ""
    concurrency: Annotated[int, Parameter(help="How many runs of --each-line at once.")] = 8
    patience: Annotated[
        float,
        Parameter(
            help="With --each-line: seconds after which a run is left alone that only waits, for a person, an event or a time.",
            validator=validators.Number(gte=0),
        ),
    ] = batch.WAITING_SECONDS
    column: Annotated[tuple[str, ...], Parameter(help="With --each-line: show only these fields of the output.")] = ()


def run(
    agent: str,
    text: str | None = None,
    *,
    options: RunOptions | None = None,
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> int:
    """Run an agent and show its answer as it is written; status 1 when it failed, 4 when only a person can let it go on.

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
    body = _body(text, options)
    with open_api(connection or Connection()) as api:
        if options.each_line:
            terms = batch.Terms(options.concurrency, options.patience, body)
            return batch.each_line(api, agent, options.each_line, terms=terms, table=batch.Table(output, options.column))
        return _one(api, agent, body, options=options, output=output)


def _body(text: str | None, options: RunOptions) -> Json:
    """What a run is started with; without its input when that is a line of a file."""
    body: Json = {}
    if not options.each_line:
        body["input"] = text if text is not None else json_value(options.input_json, "--input-json")
    if options.session:
        body["session_id"] = options.session
    if options.priority:
        body["priority"] = options.priority
    if options.start_at:
        body["start_at"] = time_of(options.start_at, "--start-at")
    return body


def _one(api: Api, agent: str, body: Json, *, options: RunOptions, output: Output) -> int:
    after = int(api.get(f"/v1/sessions/{segment(options.session)}")["last_seq"]) if options.session else 0
    started: Json = api.act(f"/v1/agents/{segment(agent)}/runs", body)
    if not options.wait:
        show_started(started, output)
        return 0
    if standing(started):
        say(standing(started))
    return watch(api, started, after=after, output=output)
