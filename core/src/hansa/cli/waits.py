"""What a run stands still for, in the words that tables and messages use, and what to type so that it goes on.

Must not know how runs are watched or listed.
"""

from typing import Any

from hansa import clock
from hansa.cli.client import Json
from hansa.cli.output import moment, span

STANDING_STATUS = 4
"""Exit status of a command whose run has not ended, and goes on only when a person does something."""
HELD = {"agent": "held, its agent is suspended", "tenant": "held, its tenant is suspended"}
"""What holds a run that nobody has held for its own sake."""


def standing(run: Json) -> str:
    """Why a run does nothing now: `waits for approval ID`, `held`, `needs review`; empty when it works or has ended."""
    match run["state"]:
        case "suspended":
            return HELD.get(str(run.get("suspended_by")), "held until it is resumed")
        case "needs_review":
            return "a person must say whether a call was made"
        case _:
            waits: list[Json] = run.get("waits") or []
            return f"waits for {', '.join(_awaited(wait) for wait in waits)}" if waits else ""


def is_asking(run: Json) -> bool:
    """Whether a run waits for a person or for an event, so for nothing that comes by itself."""
    return any(wait["kind"] in ("approval", "event") for wait in run.get("waits") or ())


def ways_on(run: Json) -> list[str]:
    """What to type so that a run goes on that does not by itself."""
    run_id, session = run["id"], run["session_id"]
    if run["state"] == "suspended" and run.get("suspended_by") == "agent":
        return [f"let it go on: set spec.suspend of agent {run['agent']} to false, and apply"]
    if run["state"] == "suspended" and run.get("suspended_by") == "tenant":
        return ["let it go on: set spec.suspend of its Tenant to false, and apply"]
    if run["state"] == "suspended":
        return [f"let it go on: hansa runs resume {run_id}"]
    if run["state"] == "needs_review":
        return [
            f"see the call: hansa logs {run_id}",
            f"it was made: hansa runs resume {run_id} --as done --answer JSON",
            f"make it again: hansa runs resume {run_id} --as retry",
            f"give up: hansa runs resume {run_id} --as fail",
        ]
    asked = [f"see what it asks: hansa approvals show {wait['key']}" for wait in run.get("waits") or () if wait["kind"] == "approval"]
    return asked + [
        f"send it: hansa sessions send {session} {wait['key']} JSON" for wait in run.get("waits") or () if wait["kind"] == "event"
    ]


def left(until: Any) -> str:
    """`12s`, `3m`, `5h`, `2d`: how long until an RFC 3339 time; a dash when there is none."""
    return span((moment(until) - clock.now()).total_seconds()) if isinstance(until, str) else "-"


def _awaited(wait: Json) -> str:
    match wait["kind"]:
        case "approval":
            return f"approval {wait['key']}"
        case "child":
            return f"run {wait['key']}"
        case "event":
            return f"event {wait['key']}"
        case "start":
            return f"its start in {left(wait.get('until'))}"
        case "rollout":
            return f"its check, {left(wait.get('until'))} until that is looked at"
        case "retry":
            return f"another try in {left(wait.get('until'))}"
        case _:
            return f"a timer, {left(wait.get('until'))} left"
