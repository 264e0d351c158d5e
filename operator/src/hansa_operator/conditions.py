"""The one place where conditions of an object are put together. Pure.

`Ready` always; `Reconciling` and `Stalled` only while they are true, as kstatus wants them; the kind's own. `lastTransitionTime` moves only
when a status flips. Every reason stands in `hansa_crds.conditions`.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from hansa_operator.model import Condition, Status

OWN = ("Ready", "Reconciling", "Stalled")
MESSAGE = 2000
"""Most characters of a message; Kubernetes would keep 32768, and `kubectl get` shows it in one line."""


Said = tuple[str, Status, str, str]
"""A condition of the kind's own: type, status, reason, message."""


def say(type_: str, status: Status, reason: str, message: str) -> Said:
    """One condition. All that is ever said stands in `hansa_crds.conditions`."""
    return type_, status, reason, message


class Verdict(msgspec.Struct, frozen=True):
    """What a reconcile has found out. `progressing`: it goes on by itself; `stalled`: only a change of the object, or a person, helps.

    `more`: conditions of the kind's own. `fields`: what else stands in the status; None takes one out.
    """

    ready: Status
    reason: str
    message: str = ""
    progressing: bool = False
    stalled: bool = False
    more: tuple[Said, ...] = ()
    fields: Mapping[str, Any] = MappingProxyType({})


def conditions_of(status: Mapping[str, Any]) -> list[Condition]:
    """The conditions of a status as it was read; what is malformed counts as absent."""
    try:
        return msgspec.convert(status.get("conditions") or [], list[Condition])
    except msgspec.ValidationError:
        return []


def summarize(before: Sequence[Condition], verdict: Verdict, *, generation: int, now: str) -> list[Condition]:
    """All conditions, Ready first. `before`: those that the object has; `now`: RFC 3339."""
    wanted: list[Said] = [("Ready", verdict.ready, verdict.reason, verdict.message)]
    if verdict.progressing:
        wanted.append(("Reconciling", "True", verdict.reason, verdict.message))
    if verdict.stalled:
        wanted.append(("Stalled", "True", verdict.reason, verdict.message))
    wanted += [each for each in verdict.more if each[0] not in OWN]
    known = {each.type: each for each in before}
    found: list[Condition] = []
    for type_, state, reason, message in wanted:
        old = known.get(type_)
        since = old.last_transition_time if old is not None and old.status == state and old.last_transition_time else now
        found.append(Condition(type_, state, reason or "NotReady", message[:MESSAGE], since, generation))
    return found


def status_of(before: Mapping[str, Any], verdict: Verdict, *, generation: int, now: str, requested: str = "") -> dict[str, Any]:
    """The status that an object should have. What nobody here knows of (fields of another writer) stays."""
    found = summarize(conditions_of(before), verdict, generation=generation, now=now)
    status = {**before, "observedGeneration": generation, "conditions": [msgspec.to_builtins(each) for each in found], **verdict.fields}
    if requested:
        status["lastHandledReconcileAt"] = requested
    return {name: value for name, value in status.items() if value is not None}


def patch_of(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch that makes one status of the other; empty if they are alike."""
    gone = {name: None for name in before if name not in wanted}
    return {**gone, **{name: value for name, value in wanted.items() if before.get(name) != value}}


def ready(status: Mapping[str, Any]) -> Condition | None:
    """The condition Ready of a status, if it has one."""
    return next((each for each in conditions_of(status) if each.type == "Ready"), None)


def transition(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """(type, reason, message) of the Event that a change of status is worth, or None.

    Worth one is what flips Ready, or changes why it is not True. That something is ready from the start is no news.
    """
    was, now = ready(before), ready(after)
    if now is None or (was is not None and (was.status, was.reason) == (now.status, now.reason)):
        return None
    if now.status == "True":
        return ("Normal", now.reason, now.message or "ready again") if was is not None and was.status != "True" else None
    return "Warning" if now.status == "False" else "Normal", now.reason, now.message


def texts(problems: Iterable[tuple[str, str]]) -> str:
    """Problems as one message: place and text each."""
    return "; ".join(f"{place}: {text}" if place else text for place, text in problems)
