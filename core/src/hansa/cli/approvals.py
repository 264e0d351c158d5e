"""`hansa approvals`, `hansa approve`, `hansa deny`, `hansa answer`: what runs ask people, and the decision.

Warning: who approves must see the call as it will be made, so what is asked is printed whole and with nothing in it invisible.
"""

from typing import Annotated, Any, Literal

from cyclopts import App, Parameter, validators

from hansa.cli.client import Api, Json, open_api, part, segment
from hansa.cli.connection import Connection
from hansa.cli.output import Column, Output, OutputFlag, age, field, literal, plain, say, show, show_value, write
from hansa.cli.usage import UsageError, json_value
from hansa.cli.waits import left

State = Literal["pending", "approved", "denied", "answered", "expired", "canceled"]
Limit = Annotated[int, Parameter(help="How many at most, the newest first.", validator=validators.Number(gte=1))]
Comment = Annotated[str, Parameter(help="Why: recorded, and told to the agent when the call is denied.")]

_COLUMNS = (
    field("ID", "id"),
    field("STATE", "state"),
    Column("AGENT", lambda row: plain(row["subject"].get("agent"))),
    Column("ASKS", lambda row: asked(row["subject"])),
    age("AGE", "requested_at"),
    Column("EXPIRES IN", lambda row: left(row.get("expires_at")) if row.get("state") == "pending" else "-"),
)

approvals = App(name="approvals")


@approvals.default
def list_approvals(
    *,
    state: Annotated[State | None, Parameter(help="Only those in this state; pending: they wait for someone.")] = None,
    limit: Limit = 50,
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> None:
    """List what runs ask people, the newest first; `show` takes the id of one."""
    with open_api(connection or Connection()) as api:
        show(api.entries("/v1/approvals", {"state": state or ""}, limit), _COLUMNS, output)


@approvals.command(name="show")
def show_approval(approval_id: str, *, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """Show a call that is to be approved, or a question, exactly as it is."""
    with open_api(connection or Connection()) as api:
        found: Json = api.get(f"/v1/approvals/{segment(approval_id)}")
    if output != "table":
        show_value(found, output)
        return
    for line in described(found):
        write(f"{line}\n")
    for line in ways_to_decide(found):
        say(line)


def approve(approval_id: str, *, comment: Comment = "", connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """Approve a call: the run makes it, exactly as it was shown, and goes on."""
    _decide(approval_id, {"decision": "approve", "comment": comment}, connection=connection, output=output)


def deny(approval_id: str, *, comment: Comment = "", connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """Deny a call: it is not made; the run goes on and is told so, with the comment."""
    _decide(approval_id, {"decision": "deny", "comment": comment}, connection=connection, output=output)


def answer(
    approval_id: str,
    text: str | None = None,
    *,
    json: Annotated[str, Parameter(help="The answer as JSON, instead of a text.")] = "",
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> None:
    """Answer a question that a run asks; the run goes on with the answer.

    Parameters
    ----------
    text
        The answer.
    """
    if (text is None) == (not json):
        raise UsageError("an answer is wanted: either TEXT or --json")
    given: Any = json_value(json, "--json") if text is None else text
    _decide(approval_id, {"decision": "answer", "answer": given}, connection=connection, output=output)


def decide(api: Api, approval_id: str, decision: Json) -> Json:
    """Decide, once, however often the request has to be sent; the approval after it."""
    return api.act(f"/v1/approvals/{segment(approval_id)}/decide", decision)


def asked(subject: Json) -> str:
    """What is asked: the call with its arguments, or the question; whole, and nothing in it invisible."""
    if "question" in subject:
        return literal(subject["question"])
    return f"{literal(subject.get('name'))} {literal(subject.get('arguments'))}"


def described(approval: Json) -> list[str]:
    """An approval line by line, for people."""
    subject = part(approval, "subject")
    lines = [f"{'question' if approval['kind'] == 'question' else 'call'}: {asked(subject)}"]
    lines += [f"agent: {plain(subject.get('agent'))}", f"run: {approval['run_id']}, step {approval['step']}", f"state: {approval['state']}"]
    if "because" in subject:
        lines.append(f"why a person: {plain(subject['because'])}")
    if approval["state"] == "pending" and approval.get("expires_at"):
        lines.append(f"expires in: {left(approval['expires_at'])}")
    lines += [f"{name}: {literal(approval[key])}" for name, key in _DECIDED if approval.get(key) is not None]
    return lines


def ways_to_decide(approval: Json) -> list[str]:
    """What to type to decide about an approval; nothing when it is decided."""
    if approval["state"] != "pending":
        return []
    if approval["kind"] == "question":
        return [f"answer it: hansa answer {approval['id']} TEXT"]
    return [f"approve it: hansa approve {approval['id']}", f"deny it: hansa deny {approval['id']} --comment WHY"]


def _decide(approval_id: str, decision: Json, *, connection: Connection | None, output: Output) -> None:
    with open_api(connection or Connection()) as api:
        decided = decide(api, approval_id, decision)
    if output != "table":
        show_value(decided, output)
    else:
        say(f"{decided['id']} {decided['state']}; run {decided['run_id']} goes on")


_DECIDED = (("decided by", "decided_by"), ("comment", "comment"), ("answer", "answer"))
