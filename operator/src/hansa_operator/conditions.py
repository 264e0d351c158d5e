"""The one place where conditions of an object are put together. Pure.

`Ready` always; `Reconciling` and `Stalled` only while they are true, as kstatus wants them; the kind's own. `lastTransitionTime` moves only
when a status flips. `REASONS` has every reason that the operator itself gives; the reference page is made of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from hansa_operator.model import Condition, Status

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "Ready": "The control plane has the object as it is written, and nothing is wrong with it.",
        "Suspended": "`spec.suspend` is set: the control plane holds its runs.",
        "NamespaceUnclaimed": "No Tenant claims the object's namespace. It continues by itself when one does.",
        "ReferenceNotFound": "What the object names is not there. It continues by itself when it appears.",
        "DependencyNotReady": "What the object names is there, and the control plane has not taken it. It continues by itself when it has.",
        "Invalid": "The control plane does not take what is written; the message says where and why. Only a change of the object helps.",
        "Conflict": "Someone else manages the object of this name; the message names the owner. `hansa takeover` moves it on purpose.",
        "NameTaken": "Another namespace of the same tenant has an object of this kind and name, and had it first.",
        "QuotaExceeded": "The tenant may have no more of it.",
        "TenantClosed": "The tenant is archived or being deleted.",
        "NamespaceTaken": "Another Tenant claimed one of the namespaces first; the message names it.",
        "NamespaceReserved": "One of the namespaces belongs to Kubernetes or to the platform itself.",
        "NamespaceNotMade": "The API server refused something in one of the namespaces; the message says what.",
        "NamespacesMade": "The tenant's namespaces are there, with their bounds and bindings.",
        "Provisioning": "The control plane has taken the object and is not done with it.",
        "NotReady": "The control plane says that something is wrong with it; the message says what.",
        "ControlPlaneUnavailable": "The control plane can't be reached, or is not ready. It continues by itself when it is.",
        "ClusterUnavailable": "The API server refused or did not answer something. It is tried again.",
        "Forbidden": "A credential of the operator does not allow it; the message says which.",
        "Disabled": "The annotation `hansa.dev/reconcile: disabled` is set: the operator leaves the object alone.",
        "Deleting": "The object is being deleted, and the control plane is not done with it.",
        "DeletionRefused": "The control plane does not delete it; the message says why. See there for the way out.",
        "SecretCopied": "The Kubernetes Secret that `credentials.secret` names is in the tenant's secret store.",
        "SecretRefused": "It is not: the message says why.",
        "SecretKept": "No labelled Kubernetes Secret has this name; the tenant's secret store has one or waits for it.",
        "TakenOver": "The platform answers for the object in another place than this namespace: an error of the installation.",
    }
)
"""Reason -> meaning."""

OWN = ("Ready", "Reconciling", "Stalled")
MESSAGE = 2000
"""Most characters of a message; Kubernetes would keep 32768, and `kubectl get` shows it in one line."""


class Verdict(msgspec.Struct, frozen=True):
    """What a reconcile has found out. `progressing`: it goes on by itself; `stalled`: only a change of the object, or a person, helps.

    `more`: conditions of the kind's own, (type, status, reason, message). `fields`: what else stands in the status; None takes one out.
    """

    ready: Status
    reason: str
    message: str = ""
    progressing: bool = False
    stalled: bool = False
    more: tuple[tuple[str, Status, str, str], ...] = ()
    fields: Mapping[str, Any] = MappingProxyType({})


def conditions_of(status: Mapping[str, Any]) -> list[Condition]:
    """The conditions of a status as it was read; what is malformed counts as absent."""
    try:
        return msgspec.convert(status.get("conditions") or [], list[Condition])
    except msgspec.ValidationError:
        return []


def summarize(before: Sequence[Condition], verdict: Verdict, *, generation: int, now: str) -> list[Condition]:
    """All conditions, Ready first. `before`: those that the object has; `now`: RFC 3339."""
    wanted: list[tuple[str, Status, str, str]] = [("Ready", verdict.ready, verdict.reason, verdict.message)]
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
