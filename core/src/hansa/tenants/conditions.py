"""The conditions of a tenant: what is so, why, and since when. What can be said stands in `hansa_crds.conditions`.

Most follow from a tenant's rows each time they are asked for, so they are never out of date. What a part of the platform finds out
otherwise it puts (`hansa.tenants.store.put_conditions`) under a type of its own, named here. Pure.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

import msgspec

from hansa_crds.conditions import CONDITIONS as OF_KINDS

Status = Literal["True", "False", "Unknown"]

CONDITIONS: Mapping[str, Mapping[str, str]] = OF_KINDS["Tenant"]
"""Type -> reason -> meaning; the meaning under the empty reason is that of the type."""


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """One condition, in the form that Kubernetes gives it."""

    type: str
    status: Status
    reason: str
    message: str
    observed_generation: int
    last_transition_time: datetime


class Region(msgspec.Struct, frozen=True):
    """What is known of the region that is asked, for all its tenants: its state, and what the last probe of its walls has found."""

    name: str
    cordoned: bool
    changed_at: datetime
    probed: bool = False
    verified: bool = False
    message: str = ""
    since: datetime | None = None
    age: float = 0.0


class Crossed(msgspec.Struct, frozen=True):
    """A limit of which much is used: `level` 1, a warning; 2, all of it."""

    name: str
    level: int


class Facts(msgspec.Struct, frozen=True):
    """What the rows of a tenant say. `workers_seen`: how many of its own workers are there, `workers_since`: since when; `messaged`:
    accounts on NATS are made here, `messaging_told`: NATS knows this one as it shall be; `limits`: names of those that are used up bit
    by bit, `crossed`: of which much is used."""

    state: str
    suspended: bool
    generation: int
    created_at: datetime
    concurrent_runs: int | None
    requests_per_second: int | None
    workers: str
    workers_seen: int
    workers_since: datetime | None
    messaged: bool | None = None
    messaging_told: bool = False
    messaging_blocked: bool = False
    messaging_trouble: str = ""
    put: tuple[Condition, ...] = ()
    crossed: tuple[Crossed, ...] = ()
    limits: tuple[str, ...] = ()
    most_agents: int | None = None


def known(type_: str, reason: str) -> bool:
    """Whether there is such a condition with such a reason."""
    return bool(reason) and reason in CONDITIONS.get(type_, ())


def conditions_of(facts: Facts, region: Region | None, *, stale_seconds: float) -> list[Condition]:
    """All conditions of a tenant, `Ready` last. What was put stands in the place of what follows from the rows. `region` None: it is
    not there. A probe older than `stale_seconds` says nothing any more."""
    found = {each.type: each for each in (*_of_rows(facts), *_of_region(facts, region, stale_seconds), *facts.put)}
    return [*found.values(), _ready(facts, found.values())]


def _of_rows(facts: Facts) -> Iterable[Condition]:
    def say(type_: str, reason: str, message: str, *, status: Status = "True", since: datetime | None = None) -> Condition:
        return Condition(type_, status, reason, message, facts.generation, since or facts.created_at)

    yield say("DatabaseReady", "Provisioned", "its rows are in the shared database, behind forced row-level security")
    if facts.messaged and not facts.messaging_told:
        message = facts.messaging_trouble or "NATS has not been told of the tenant's account yet"
        yield say("MessagingReady", "AccountNotMade", message, status="False")
    elif facts.messaged and facts.messaging_blocked:
        yield say("MessagingReady", "AccountBlocked", "the tenant stands still: its account lets nobody in", status="False")
    elif facts.messaged:
        yield say("MessagingReady", "AccountReady", "NATS knows the tenant's account and bounds it")
    if facts.state == "active":
        yield say("IdentityReady", "ApiKeys", "API keys of the tenant are let in")
    else:
        yield say("IdentityReady", "Closed", f"the tenant is {facts.state}: nobody is let in", status="False")
    bounds = {"concurrentRuns": facts.concurrent_runs, "requestsPerSecond": facts.requests_per_second, "agents": facts.most_agents}
    told = ", ".join((*(f"{name} {bound}" for name, bound in bounds.items() if bound is not None), *facts.limits))
    level = max((each.level for each in facts.crossed), default=0)
    near = ", ".join(f"{each.name} is {'reached' if each.level > 1 else 'nearly used up'}" for each in facts.crossed)
    message = "; ".join(part for part in (near, f"counted: {told}" if told else "") if part) or "nothing is bounded"
    if level == 0:
        yield say("QuotaReady", "InForce", message)
    elif level == 1:
        yield say("QuotaReady", "Warning", message)
    else:
        yield say("QuotaReady", "Reached", message)
    if facts.workers == "Dedicated" and facts.workers_seen:
        yield say("WorkersReady", "Serving", f"{facts.workers_seen} workers of its own are there", since=facts.workers_since)
    elif facts.workers == "Dedicated":
        message = "no worker that was started for it is there (HANSA_WORKER_TENANT), so its runs wait"
        yield say("WorkersReady", "NoWorker", message, status="False", since=facts.workers_since)


def _of_region(facts: Facts, region: Region | None, stale_seconds: float) -> Iterable[Condition]:
    def say(type_: str, status: Status, reason: str, message: str, since: datetime | None) -> Condition:
        return Condition(type_, status, reason, message, facts.generation, max(since or facts.created_at, facts.created_at))

    if region is None:
        yield say("RegionsReady", "Unknown", "NotRegistered", "the region that was asked is not in the database", None)
    elif region.cordoned:
        yield say("RegionsReady", "False", "Cordoned", f"region {region.name} is cordoned and takes no new runs", region.changed_at)
    else:
        yield say("RegionsReady", "True", "Serving", f"region {region.name} takes its runs", region.changed_at)
    if region is None or not region.probed:
        yield say("IsolationVerified", "Unknown", "NotProbed", "no probe has run yet; workers run them", None)
    elif region.age > stale_seconds:
        message = f"the last probe ended {region.age:.0f} s ago; workers run them"
        yield say("IsolationVerified", "Unknown", "ProbeStale", message, region.since)
    elif region.verified:
        yield say("IsolationVerified", "True", "ProbesPassed", "no table lets another tenant's rows be read or written", region.since)
    else:
        yield say("IsolationVerified", "False", "Breached", region.message, region.since)


def _ready(facts: Facts, found: Iterable[Condition]) -> Condition:
    def say(status: Status, reason: str, message: str, since: datetime) -> Condition:
        return Condition("Ready", status, reason, message, facts.generation, since)

    others = list(found)
    last = max(each.last_transition_time for each in others)
    if facts.state == "deleting":
        return say("False", "Deleting", "the tenant is being deleted", last)
    if facts.state == "archived":
        return say("False", "Archived", "the tenant is archived; `hansa tenants restore` brings it back", last)
    if facts.suspended:
        return say("False", "Suspended", "spec.suspend is set: no run starts, and those under way are held", last)
    wrong = [each for each in others if each.status != "True"]
    if wrong:
        status: Status = "False" if any(each.status == "False" for each in wrong) else "Unknown"
        since = max(each.last_transition_time for each in wrong)
        return say(status, "NotReady", "; ".join(f"{each.type}: {each.message}" for each in wrong), since)
    return say("True", "AllReady", "the tenant is at work", last)
