"""What an answer of the control plane means for an object's status. Pure."""

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from hansa_operator.conditions import Said, Verdict, say
from hansa_operator.model import Condition, Found, Status
from hansa_operator.platform import Result

STALLED: Mapping[str, str] = {"conflict": "Conflict", "quota": "QuotaExceeded", "closed": "TenantClosed", "forbidden": "Forbidden"}
"""Code of an error -> reason. Only a change of the object, or a person, helps."""
RETRY_SECONDS = 60.0
"""After so many seconds what depends on others is tried again although nothing was heard of them."""
LOOK_SECONDS = 2.0


class Judgement(msgspec.Struct, frozen=True):
    """A verdict, and when to look again: `after` seconds, or when something is heard. `taken`: the control plane has it as written."""

    verdict: Verdict
    after: float | None = None
    taken: bool = False


def refused(result: Result) -> Judgement:
    """Of an object that the control plane did not take."""
    message = "; ".join(problem.text for problem in result.errors) or "the control plane refused it and did not say why"
    codes = {problem.code for problem in result.errors}
    for code, reason in STALLED.items():
        if code in codes:
            return Judgement(Verdict("False", reason, message, stalled=True), RETRY_SECONDS)
    if codes == {"reference"}:
        return Judgement(Verdict("False", "ReferenceNotFound", message, progressing=True), RETRY_SECONDS)
    return Judgement(Verdict("False", "Invalid", message, stalled=True))


def taken(found: Found, result: Result, status: Mapping[str, Any] | None, *, fields: Mapping[str, Any]) -> Judgement:
    """Of an object that the control plane has. `status`: what the platform knows of it."""
    spec, known = found.spec_value(), status or {}
    told = _conditions(known)
    more: list[Said] = [(each.type, each.status, each.reason, each.message) for each in told if each.type != "Ready"]
    said = next((each for each in told if each.type == "Ready"), None)
    stood: tuple[Status, str, str] = ("True", "Ready", result.note) if said is None else (said.status, said.reason, said.message)
    extra = dict(fields)
    if found.key.kind == "ToolServer" and "reachable" in known:
        reachable = bool(known["reachable"])
        why = str(known.get("reason", ""))
        more.append(say("Reachable", "True", "Answers", "") if reachable else say("Reachable", "False", "NoAnswer", why))
        extra["tools"] = len(known.get("tools") or ())
        if not reachable:
            stood = ("False", "NotReady", f"not reachable: {why}")
    revision = _revision(known, result) if found.key.kind == "Agent" else None
    if revision is not None:
        extra["revision"] = revision
    if spec.get("suspend") and stood[0] == "True":
        stood = ("False", "Suspended", "spec.suspend is set: no run of it starts, and those under way are held")
    unfinished = stood[0] == "Unknown" or stood[1] in ("Provisioning", "Progressing", "Checking")
    verdict = Verdict(*stood, progressing=unfinished, stalled=stood[1] == "Refused", more=tuple(more), fields=extra)
    # How a tenant is, is looked at for all tenants at once.
    after = LOOK_SECONDS if unfinished and found.key.kind != "Tenant" else None
    return Judgement(verdict, after, taken=True)


def with_more(judgement: Judgement, *more: Said) -> Judgement:
    """The same with further conditions of the kind's own; one that is False makes it not ready."""
    verdict = msgspec.structs.replace(judgement.verdict, more=(*judgement.verdict.more, *more))
    wrong = [each for each in more if each[1] == "False"]
    if wrong and verdict.ready == "True":
        type_, _, reason, message = wrong[0]
        verdict = msgspec.structs.replace(verdict, ready="False", reason=reason, message=f"{type_}: {message}")
    return msgspec.structs.replace(judgement, verdict=verdict)


def _conditions(status: Mapping[str, Any]) -> list[Condition]:
    try:
        return msgspec.convert(status.get("conditions") or [], list[Condition])
    except msgspec.ValidationError:
        return []


def _revision(status: Mapping[str, Any], result: Result) -> dict[str, int] | None:
    told: Any = status.get("revision")
    if isinstance(told, dict):
        return {name: value for name, value in cast("dict[str, Any]", told).items() if isinstance(value, int)} or None
    return {"desired": result.revision, "serving": result.revision} if result.revision is not None else None
