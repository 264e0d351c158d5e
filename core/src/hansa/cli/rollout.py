"""`hansa rollout`: how a new revision of an agent comes to serve, which there were, going back to one, trying a refused one again."""

import time
from typing import Annotated, Any

from cyclopts import App, Parameter, validators

from hansa.cli.client import Api, Json, open_api, part, segment
from hansa.cli.connection import Connection
from hansa.cli.output import Column, OutputFlag, Row, age, describe, field, say, short, show, show_value, write
from hansa.cli.usage import UsageError
from hansa.cli.waits import STANDING_STATUS
from hansa.errors import FieldError, NotFound

REFUSED_STATUS = 1
LOOK_SECONDS = 0.5
MANAGED = ("rest", "")
"""Managers of objects that are changed here; any other one would change them back."""
_HISTORY_COLUMNS = (
    field("REVISION", "revision"),
    field("STATE", "state"),
    field("REASON", "reason"),
    field("CHECKED BY RUN", "smoke_run"),
    age("AGE", "created_at"),
    Column("MESSAGE", lambda row: short(str(row.get("message") or "-"), 80)),
)

rollout = App(name="rollout")


def ready(agent: Row) -> Json:
    """The condition Ready of an agent."""
    conditions: list[Json] = part(dict(agent), "status").get("conditions") or []
    return next((each for each in conditions if each["type"] == "Ready"), {"status": "-", "reason": "-", "message": ""})


def revision(agent: Row) -> str:
    """`3`, or `4/3` where revision 4 is wanted and 3 serves; `4/-` where none does."""
    found = part(part(dict(agent), "status"), "revision")
    desired, serving = found.get("desired", agent.get("revision")), found.get("serving")
    return str(desired) if desired == serving else f"{desired}/{serving or '-'}"


@rollout.command(name="status")
def status(
    agent: str,
    *,
    wait: Annotated[float, Parameter(help="Seconds to wait until it is decided; 0: don't.", validator=validators.Number(gte=0))] = 600.0,
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> int:
    """Wait until an agent's newest revision serves (status 0) or is refused (1); 4 when that is not decided in time.

    Parameters
    ----------
    agent
        Name of the agent.
    """
    end, told = time.monotonic() + wait, ""
    with open_api(connection or Connection()) as api:
        while True:
            found = _agent(api, agent)
            state = ready(found)
            if state["reason"] != "Checking" or time.monotonic() >= end:
                break
            if state["message"] != told and output == "table":
                told = state["message"]
                say(told)
            time.sleep(min(LOOK_SECONDS, max(0.0, end - time.monotonic())))
    if output != "table":
        show_value(found["status"], output)
    elif state["message"] != told:
        write(f"{state['message']}\n")
    wanted = part(found, "status")["revision"]
    if wanted["desired"] == wanted["serving"]:
        return 0
    return REFUSED_STATUS if state["reason"] == "Refused" else STANDING_STATUS  # while it is suspended nothing is decided


@rollout.command(name="history")
def history(
    agent: str,
    *,
    limit: Annotated[int, Parameter(help="How many at most, the newest first.", validator=validators.Number(gte=1))] = 50,
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> None:
    """List the revisions of an agent, the newest first, and what became of each.

    Parameters
    ----------
    agent
        Name of the agent.
    """
    with open_api(connection or Connection()) as api:
        show(api.entries(f"/v1/agents/{segment(agent)}/revisions", {}, limit), _HISTORY_COLUMNS, output)


@rollout.command(name="undo")
def undo(
    agent: str,
    *,
    to_revision: Annotated[
        int | None, Parameter(help="Which one; left out: that which served before.", validator=validators.Number(gte=1))
    ] = None,
    connection: Connection | None = None,
) -> int:
    """Apply what an agent was in an earlier revision. That makes a new revision, which serves at once where the old one did.

    Parameters
    ----------
    agent
        Name of the agent.
    """
    with open_api(connection or Connection()) as api:
        found = _agent(api, agent)
        if found.get("manager") not in MANAGED:
            raise UsageError(
                f"agent {agent} is managed by {found['manager']}, which would undo the undoing",
                hint="Revert the change where it was made, and let it be applied from there.",
            )
        wanted = _earlier(api, found, to_revision)
        answer = api.post("/v1/objects:apply", {"objects": [{"manifest": wanted["manifest"]}]})
    (result,) = answer["results"]
    for error in result.get("errors") or ():
        say(describe(FieldError(error["path"], error["code"], error["message"])), style="red")
    if result["action"] == "failed":
        return REFUSED_STATUS
    write(f"agent/{agent} is as it was in revision {wanted['revision']}; that is revision {result['revision']} now\n")
    if result.get("note"):
        say(f"  {result['note']}", style="yellow")
    return 0


@rollout.command(name="retry")
def retry(agent: str, *, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """Check the newest revision of an agent, which was refused, once more.

    Parameters
    ----------
    agent
        Name of the agent.
    """
    with open_api(connection or Connection()) as api:
        found = api.post(f"/v1/agents/{segment(agent)}/rollout/retry", {})
    if output != "table":
        show_value(found, output)
    else:
        write(f"{ready({'status': found})['message']}\n")


def _agent(api: Api, name: str) -> Json:
    return api.get(f"/v1/agents/{segment(name)}")


def _earlier(api: Api, agent: Json, number: int | None) -> dict[str, Any]:
    """The revision to go back to: the one that serves where the newest does not, else the last before it that has served."""
    name, wanted = agent["name"], part(part(agent, "status"), "revision")
    revisions = api.entries(f"/v1/agents/{segment(name)}/revisions", {}, None)
    if number is not None:
        known = [each for each in revisions if each["revision"] == number]
        if not known:
            raise NotFound(f"agent {name} has no revision {number}", hint=f"hansa rollout history {name}")
        return known[0]
    newest = [each for each in revisions if each["revision"] < wanted["desired"]]
    for each in newest:
        if each["revision"] == wanted["serving"] or (wanted["serving"] == wanted["desired"] and each["state"] == "served"):
            return each
    raise UsageError(f"agent {name} has no earlier revision that has served", hint=f"hansa rollout history {name}")
