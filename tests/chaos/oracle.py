"""Holds what clients were promised against the logs and against the witness of the tools' effects.

Pure, and knows nothing of what was hurt: five kinds of violation, and the times in which runs of killed workers were taken up.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from chaos.ledger import ENDED, Ledger, Promise

KINDS = ("lost", "doubled", "stuck", "gaps", "reordered", "refused")
ENDS = frozenset({"run.completed", "run.failed", "run.canceled"})
STARTS = frozenset({"run.started", "run.resumed"})
REVIEW_FAILED = "review_failed"
"""The error of a run of which a person has decided that it fails."""


class Run(msgspec.Struct, frozen=True):
    """A row. `error` is its code, empty when there is none; `parent` is the run that called it and the step, empty when nobody did."""

    id: str
    session: str
    queued: int
    state: str
    nonce: str
    output: Any
    error: str
    parent: str = ""


class Event(msgspec.Struct, frozen=True):
    """A line of a log. `effect` is empty where there is none."""

    session: str
    run: str
    seq: int
    type: str
    step: str | None
    at: datetime
    effect: str


class Facts(msgspec.Struct, frozen=True):
    """All there is in the database, events in the order of (session, seq), and what the witness was told."""

    runs: Sequence[Run]
    events: Sequence[Event]
    witness: Sequence[Mapping[str, Any]]


class Violation(msgspec.Struct, frozen=True):
    """A broken promise; `kind` is one of KINDS."""

    kind: str
    told: str


def violations(ledger: Ledger, facts: Facts) -> list[Violation]:
    """Everything that is wrong."""
    of_run: dict[str, list[Event]] = defaultdict(list)
    of_session: dict[str, list[Event]] = defaultdict(list)
    for event in facts.events:
        of_run[event.run].append(event)
        of_session[event.session].append(event)
    lines: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for line in facts.witness:
        lines[line["key"].partition(":")[0]].append(line)
    found = list(_of_requests(ledger, facts.runs))
    for run in facts.runs:
        decisions = ledger.decisions.get(run.id, [])
        found.extend(_of_state(run, of_run[run.id], ledger.promises.get(run.nonce), failed_by_review="fail" in decisions))
        found.extend(_of_effects(run, lines[run.id], ledger.promises.get(run.nonce), retries=decisions.count("retry")))
        found.extend(_of_steps(run, of_run[run.id], retries=decisions.count("retry")))
    by_session: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(facts.runs, key=lambda run: run.queued):
        by_session[run.session].append(run)
    for session, events in of_session.items():
        found.extend(_of_log(session, events, by_session[session]))
        found.extend(_of_clients(session, events, by_session[session], ledger))
    return found


def _of_requests(ledger: Ledger, runs: Iterable[Run]) -> Iterable[Violation]:
    ids = {run.id for run in runs}
    made = Counter(run.nonce for run in runs if run.nonce)
    for call, count in Counter(run.parent for run in runs if run.parent).items():
        if count > 1:
            yield Violation("doubled", f"the call {call} gave {count} runs")
    for promise in ledger.promises.values():
        name = f"{promise.shape} {promise.nonce}"
        yield from (Violation("lost", f"{name}: run {run} was accepted and is gone") for run in promise.ids - ids)
        if len(promise.ids) > 1 or made[promise.nonce] > 1:
            yield Violation("doubled", f"{name}: one idempotency key gave {max(len(promise.ids), made[promise.nonce])} runs")
    for refusal in ledger.refusals:
        yield Violation("refused", f"{refusal.request}: {refusal.answer}")
    for run, replay in ledger.replays.items():
        if not replay.get("equal"):
            yield Violation("reordered", f"run {run}: its replay is not equal: {replay}")


def _of_state(run: Run, events: Sequence[Event], promise: Promise | None, *, failed_by_review: bool) -> Iterable[Violation]:
    name = f"run {run.id}" + (f" ({promise.shape} {promise.nonce})" if promise else "")
    if run.state not in ENDED:
        yield Violation("stuck", f"{name} is {run.state}")
        return
    if run.state == "failed" and not (failed_by_review and run.error == REVIEW_FAILED):
        yield Violation("lost", f"{name} failed: {run.error}")
    if run.state == "canceled" and not run.parent and not (promise and promise.cancel):
        yield Violation("lost", f"{name} was canceled and nobody asked for it")
    if run.state == "completed" and promise is not None and promise.output is not None and run.output != promise.output:
        yield Violation("lost", f"{name} said {run.output!r} at its end, not {promise.output!r}")
    in_doubt = set[str | None]()
    for event in events:
        if event.type == "tool.called" and event.effect == "unsafe":
            in_doubt.add(event.step)
        elif event.type == "tool.completed":
            in_doubt.discard(event.step)
        elif event.type == "run.needs_review" and not in_doubt:
            yield Violation("lost", f"{name} was sent to review without a reason")
    if run.state == "completed" and in_doubt:
        yield Violation("lost", f"{name} was completed and nobody knows of steps {sorted(map(str, in_doubt))}")
    ends = [event.type for event in events if event.type in ENDS]
    if ends[-1:] != [f"run.{run.state}"]:
        yield Violation("lost", f"{name} is {run.state} and its log ends with {ends or 'nothing'}")


def _of_effects(run: Run, lines: Sequence[Mapping[str, Any]], promise: Promise | None, *, retries: int) -> Iterable[Violation]:
    done = {line["mark"] for line in lines if line["phase"] == "effect"}
    if run.state == "completed" and promise is not None and not promise.marks <= done:
        told = f"run {run.id} ({promise.shape} {promise.nonce}) was completed without the effects {sorted(promise.marks - done)}"
        yield Violation("lost", told)
    begun = Counter(line["mark"] for line in lines if line["effect"] == "unsafe" and line["phase"] == "begin")
    for mark, count in begun.items():
        if count > 1 + retries:
            yield Violation("doubled", f"run {run.id}: the unsafe call {mark} was made {count} times, and {retries} more were asked for")
    keys: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        keys[line["mark"]].add(line["key"])
    yield from (
        Violation("doubled", f"{mark} was done under the keys {sorted(many)}") for mark, many in keys.items() if len(many) > 1 + retries
    )


def _of_steps(run: Run, events: Sequence[Event], *, retries: int) -> Iterable[Violation]:
    steps = Counter((event.step, event.type) for event in events if event.step is not None and event.type != "review.decided")
    for (step, type_), count in steps.items():
        if count > (1 + retries if type_ == "tool.called" else 1):
            yield Violation("doubled", f"run {run.id}: step {step} has {count} times {type_}")
    ends = Counter(event.type for event in events if event.type in ENDS)
    yield from (Violation("doubled", f"run {run.id}: {n} times {type_}") for type_, n in ends.items() if n > 1)
    completed = set[str | None]()
    for event in events:
        if event.type == "tool.completed":
            completed.add(event.step)
        elif event.type == "tool.called" and event.step in completed:
            yield Violation("reordered", f"run {run.id}: step {event.step} was called after it was completed")


def _of_log(session: str, events: Sequence[Event], runs: Sequence[Run]) -> Iterable[Violation]:
    numbers = [event.seq for event in events]
    if numbers != list(range(1, len(numbers) + 1)):
        missing = sorted(set(range(1, max(numbers) + 1)) - set(numbers))
        yield Violation("gaps", f"session {session}: numbers {missing or numbers} are missing or doubled")
    for before, after in itertools.pairwise(events):
        if after.at < before.at:
            yield Violation("reordered", f"session {session}: {after.seq} was written before {before.seq}")
    order = {run.id: place for place, run in enumerate(runs)}
    at_work, ended = 0, set[str]()
    for event in events:
        if event.type in STARTS and order.get(event.run, 0) < at_work:
            yield Violation("reordered", f"session {session}: run {event.run} was at work again after a later one, at {event.seq}")
        if event.type in STARTS:
            at_work = max(at_work, order.get(event.run, 0))
            waiting = [run.id for run in runs[: order.get(event.run, 0)] if run.id not in ended]
            if waiting:
                yield Violation("reordered", f"session {session}: run {event.run} was begun before {waiting} had ended")
        if event.step is not None and event.run in ended:
            yield Violation("reordered", f"session {session}: run {event.run} has a step after its end, at {event.seq}")
        if event.type in ENDS:
            ended.add(event.run)


def _of_clients(session: str, events: Sequence[Event], runs: Sequence[Run], ledger: Ledger) -> Iterable[Violation]:
    posted = ledger.queues.get(session)
    if posted is not None:
        accepted = [run.nonce for run in runs if run.nonce in set(posted)]
        if accepted != posted:
            yield Violation("reordered", f"session {session}: posted {posted}, queued {accepted}")
    seen = ledger.followed.get(session)
    if seen is not None and seen != list(range(1, len(seen) + 1)):
        yield Violation("reordered", f"session {session}: a stream told the numbers {seen}")
    if seen and seen[-1] > len(events):
        yield Violation("lost", f"session {session}: a stream told of event {seen[-1]}, and the log has {len(events)}")


def resumes(ledger: Ledger, events: Iterable[Event]) -> list[float]:
    """For each run that a killed worker had in hand, the seconds to the moment at which another took it up; sorted."""
    turns: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.type == "run.resumed" or event.type in ENDS:
            turns[event.run].append(event)
    found: list[float] = []
    for death in ledger.deaths:
        for run in death.runs:
            following = next((event for event in turns[run] if event.at.timestamp() > death.at), None)
            # An end in a write that was under way when its worker died needs nobody to take the run up.
            if following is not None and following.type == "run.resumed":
                found.append(following.at.timestamp() - death.at)
    return sorted(found)
