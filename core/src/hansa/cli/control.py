"""`hansa runs cancel`, `suspend`, `resume`, `fork`, `replay`, and `hansa sessions send`: what people do with runs."""

from typing import Annotated, Literal

from cyclopts import Parameter, validators

from hansa.cli.client import Json, open_api, segment
from hansa.cli.connection import Connection
from hansa.cli.following import FINAL_STATES
from hansa.cli.output import Output, OutputFlag, say, show_value, write
from hansa.cli.usage import UsageError, json_value
from hansa.cli.watching import show_started, watch


def cancel(run_id: str, *, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """Ask a run to stop; what it has done stays recorded."""
    _tell(_act(run_id, "cancel", {}, connection), "canceled", "asked to stop", output)


def suspend(run_id: str, *, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """Hold a run where it is until it is resumed; meanwhile it costs nothing."""
    _tell(_act(run_id, "suspend", {}, connection), "suspended", "asked to stand still", output)


def resume(
    run_id: str,
    *,
    decision: Annotated[
        Literal["done", "retry", "fail"] | None,
        Parameter(name="--as", help="For a run that needs review: its call was made (done), is to be made again, or the run fails."),
    ] = None,
    answer: Annotated[str, Parameter(help="With --as done: what the call answered, as JSON.")] = "",
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> None:
    """Let a suspended run go on, or decide about a call of which nobody knows whether it was made."""
    if decision == "done" and not answer:
        raise UsageError("--as done goes with --answer: what the call answered, as JSON", hint="--answer null, if it answered nothing.")
    if answer and decision != "done":
        raise UsageError("--answer is what a call answered that was made: it goes with --as done")
    body: Json = {"as": decision} if decision else {}
    if answer:
        body["answer"] = json_value(answer, "--answer")
    run = _act(run_id, "resume", body, connection)
    if output != "table":
        show_value(run, output)
    else:
        say(f"run {run['id']}: {run['state'] if run['state'] in FINAL_STATES else 'goes on'}")


def fork(
    run_id: str,
    *,
    at: Annotated[int, Parameter(help="Number of the last event taken over, as `hansa logs` has it.", validator=validators.Number(gte=1))],
    follow: Annotated[bool, Parameter(name=("--follow", "-f"), negative=(), help="Show the new run until it ends.")] = False,
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> int:
    """Start a new run, in a session of its own, that has done what a run had done up to an event, and goes on by itself from there."""
    with open_api(connection or Connection()) as api:
        forked: Json = api.act(f"/v1/runs/{segment(run_id)}/fork", {"at": at})
        if follow:
            return watch(api, forked, after=0, output=output)
    show_started(forked, output)
    return 0


def replay(run_id: str, *, connection: Connection | None = None, output: OutputFlag = "table") -> int:
    """Run the agent's code again over the recorded log, with no effect, and compare; status 1 when it differs."""
    with open_api(connection or Connection()) as api:
        found: Json = api.get(f"/v1/runs/{segment(run_id)}/replay")
    if output != "table":
        show_value(found, output)
    elif found["equal"]:
        write(f"equal: {found['steps']} steps, {found['digest']}\n")
    else:
        place: Json = found["diverged_at"]
        where = "its end" if place["step"] == "end" else f"step {place['step']}"
        write(f"differs at {where}\nin the log: {place['expected']}\nnow: {place['got']}\n")
    return 0 if found["equal"] else 1


def send(
    session_id: str,
    name: str,
    data: str = "null",
    *,
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> None:
    """Send an event to a session: the run that waits for one of this name goes on with it, or the next one that will.

    Parameters
    ----------
    name
        The event's name, as a run waits for it.
    data
        What it says, as JSON.
    """
    value = json_value(data, "DATA")
    with open_api(connection or Connection()) as api:
        sent: Json = api.act(f"/v1/sessions/{segment(session_id)}/events/{segment(name)}", {"data": value})
    if output != "table":
        show_value(sent, output)
    elif sent["delivered"]:
        say(f"run {sent['run_id']} goes on with it")
    else:
        say(f"kept until a run of the session waits for {name}")


def _act(run_id: str, verb: str, body: Json, connection: Connection | None) -> Json:
    with open_api(connection or Connection()) as api:
        return api.act(f"/v1/runs/{segment(run_id)}/{verb}", body)


def _tell(run: Json, wanted: str, asked: str, output: Output) -> None:
    """What became of a wish: it is so, or the run has ended before, or it will be as soon as the run's worker has heard."""
    state = str(run["state"])
    if output != "table":
        show_value(run, output)
    elif state == wanted:
        say(f"run {run['id']}: {state}")
    elif state in FINAL_STATES:
        say(f"run {run['id']}: already {state}")
    else:
        say(f"run {run['id']}: {state}, {asked}")
