"""Shows a run as it goes on, lets a person decide what it asks, and says how it came out and what to do then.

Must not know how the run was started.
"""

import sys
from typing import Any

import msgspec

from hansa.cli import prompt
from hansa.cli.client import Api, Json, part, segment
from hansa.cli.following import DROPPED, FINAL_STATES, Happening, follow
from hansa.cli.output import Output, clean, literal, plain, say, short, show_value, write
from hansa.cli.transcript import Shown, Transcript
from hansa.cli.waits import STANDING_STATUS, standing, ways_on
from hansa.errors import HansaError

PATIENCE_SECONDS = 120.0
"""How long a server may be away while a run is under way: a restart takes seconds, an upgrade a minute."""
_WOKEN = frozenset({"approval.decided", "event.received", "review.decided", "run.continued", "run.retrying", "run.returned", "timer.fired"})
"""What lets a run go on that had been let go of by its worker."""


def watch(api: Api, run: Json, *, after: int, output: Output) -> int:
    """Show what happens in a run after event `after` of its session, until it has ended or is held; the exit status."""
    run_id = str(run["id"])
    try:
        screen = _Screen(live=output == "table" and sys.stdout.isatty())
        for happening in follow(api, str(run["session_id"]), after=after, until=run_id, patience=PATIENCE_SECONDS):
            if happening.type == DROPPED or happening.data.get("run_id") == run_id:
                screen.take(happening.type, happening.data)
                _ask(api, happening, output)
        finished = api.get(f"/v1/runs/{segment(run_id)}", patience=PATIENCE_SECONDS)
    except KeyboardInterrupt:
        say(f"\nleft running: {run_id}")
        _say_ways(run_id)
        raise
    except HansaError:
        say(f"run {run_id} goes on without this terminal")
        _say_ways(run_id)
        raise
    return _finish(finished, screen, output)


def show_started(started: Json, output: Output) -> None:
    """Print a run that goes on without this terminal, and say how to follow it."""
    if output == "table":
        write(f"{started['id']}\n")
        _say_ways(started["id"])
    else:
        show_value(started, output)


def _say_ways(run_id: str) -> None:
    say(f"follow it: hansa logs {run_id} --follow\ncancel it: hansa runs cancel {run_id}")


def _ask(api: Api, happening: Happening, output: Output) -> None:
    if happening.type != "approval.requested":
        return
    approval_id = str(part(happening.data, "data").get("approval_id"))
    try:
        prompt.ask(api, approval_id, here=output == "table")
    except HansaError as error:
        # Whoever may start runs need not be allowed to see or decide what they ask: someone else is.
        say(f"the run asks a person, see approval {approval_id}: {error.detail}")


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
    if finished["state"] not in FINAL_STATES:
        for line in (standing(finished), *ways_on(finished)):
            say(line)
        return STANDING_STATUS
    error = part(finished, "error")
    if error:
        say(f"error: {error.get('code', '')}: {error.get('detail', '')}", style="red")
        if error.get("hint"):
            say(f"hint: {error['hint']}")
    return 1


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _offset(data: Json) -> int | None:
    offset = data.get("offset")
    return offset if isinstance(offset, int) else None


def _told(kind: str, inside: Json, session: str) -> str:
    """What is said of an event that is neither text nor a tool's; empty: nothing."""
    match kind:
        case "log":
            return str(inside.get("message", ""))
        case "timer.started":
            return f"sleeps for {inside.get('seconds')} s"
        case "event.awaited":
            name = literal(inside.get("name"))
            return f"waits for event {name}; send it: hansa sessions send {session} {name} JSON"
        case "run.called":
            return f"{inside.get('name')} is called, in run {inside.get('run_id')}"
        case "run.returned":
            return f"run {inside.get('id')} {inside.get('state')}"
        case "run.retrying":
            return f"tries again in {inside.get('seconds')} s: {part(inside, 'error').get('detail', '')}"
        case "approval.decided":
            by = f" by {inside['by']}" if inside.get("by") else ""
            return f"{inside.get('decision')}{by}{': ' + literal(inside['comment']) if inside.get('comment') else ''}"
        case "run.continued" | "review.decided":
            return f"goes on, {inside.get('by')} decided so"
        case _:
            return ""


class _Screen:
    """What the terminal shows of a run: answers on stdout as they come if `live`, everything else dim on stderr."""

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self._transcript = Transcript()
        self._within_line = False
        self._woken = False

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
            case "run.resumed":
                if not self._woken:
                    self._note("taken over by another worker")
                self._woken = False
            case _ if kind == DROPPED:
                self._transcript.dropped()
                self._note("connection lost, trying again")
            case _:
                self._note(_told(kind, inside, str(data.get("session_id"))))
        self._woken = self._woken or kind in _WOKEN or "forked_from" in inside

    def has_shown(self, output: Any) -> bool:
        """Whether the final output stands on the screen already, as the last answer."""
        return self._live and bool(self._transcript.whole) and _as_text(output).strip() == self._transcript.whole.strip()

    def end_line(self) -> None:
        """Finish the line that the answer ended in."""
        if self._within_line:
            write("\n")
            self._within_line = False

    def _note(self, text: str) -> None:
        if text:
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
