"""Asks the person at this terminal what a run asks, for as long as nobody has decided it elsewhere.

Warning: what was typed before the question stood there is thrown away, or it would be taken for the decision.
"""

import os
import select
import sys
import termios

from hansa.cli.approvals import decide, described, ways_to_decide
from hansa.cli.client import Api, Json, segment
from hansa.cli.output import say
from hansa.errors import HansaError

LOOK_SECONDS = 1.0
_CALL, _QUESTION = "approve this call? [y/N] ", "answer (empty: leave it to others): "


def ask(api: Api, approval_id: str, *, here: bool) -> None:
    """Show what a run asks and how to decide it, unless it is decided. With `here`, on a terminal, let it be decided here."""
    approval: Json = api.get(f"/v1/approvals/{segment(approval_id)}")
    if approval["state"] != "pending":
        return
    for line in (*described(approval), *ways_to_decide(approval)):
        say(line)
    decision = _decision(api, approval) if here and _is_attended() else None
    if decision is None:
        return
    try:
        say(f"{decide(api, approval_id, decision)['state']} here")
    except HansaError as error:
        say(f"not decided here: {error.detail}")


def _decision(api: Api, approval: Json) -> Json | None:
    """What the person decides; None: it is left to others, or others were first."""
    if approval["kind"] == "question":
        text = _line(api, approval, _QUESTION)
        return {"decision": "answer", "answer": text} if text else None
    while (text := _line(api, approval, _CALL)) is not None:
        if text.lower() in ("y", "yes"):
            return {"decision": "approve"}
        if text.lower() in ("n", "no", ""):
            return {"decision": "deny"}
    return None


def _line(api: Api, approval: Json, question: str) -> str | None:
    """The line that is typed; None at the end of input (Ctrl-D), or when the approval is no longer pending."""
    termios.tcflush(sys.stdin, termios.TCIFLUSH)
    sys.stderr.write(question)
    sys.stderr.flush()
    while True:
        if select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
            typed = os.read(sys.stdin.fileno(), 4096)
            if not typed:
                say("")
            return typed.decode(errors="replace").strip() if typed else None
        state = api.get(f"/v1/approvals/{segment(approval['id'])}", patience=LOOK_SECONDS)["state"]
        if state != "pending":
            say(f"\n{state} elsewhere")
            return None


def _is_attended() -> bool:
    """Whether a person sits at this terminal, and it is this program that they type to."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return True  # a terminal without job control: nobody else reads it
