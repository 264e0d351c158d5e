"""What is said of an agent: each condition with its reason, which revision is wanted and which serves, and what a check waits for."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from hansa.apply.rollout.conditions import CONDITIONS, Troubles, conditions_of, standing
from hansa.apply.rollout.model import Facts, Rollout
from hansa.errors import FieldError

THEN = datetime(2026, 1, 1, tzinfo=UTC)
RUN = UUID(int=7)
LACK = (FieldError("spec.model.alias", "reference", "no ModelProvider offers it"),)


def facts(desired: int = 2, serving: int = 1, rollout: Rollout | None = None) -> Facts:
    return Facts("a", 5, THEN, {}, None, desired, THEN, serving, rollout)


def rollout(state: str = "checking", message: str = "", **run: str | None) -> Rollout:
    return Rollout(state, state.capitalize(), message, THEN + timedelta(seconds=9), RUN, **run)


@pytest.mark.parametrize(
    ("found", "suspended", "said"),
    [
        (facts(2, 2), False, ("True", "Serving", "revision 2 serves")),
        (facts(2, 2, rollout("served")), False, ("True", "Serving", "revision 2 serves")),
        (facts(2, 1, rollout()), False, ("Unknown", "Checking", "its run is about to be started; revision 1 serves meanwhile")),
        (facts(1, 0, rollout()), False, ("Unknown", "Checking", "no revision serves yet")),
        (facts(2, 1, rollout("refused", "it was wrong")), False, ("False", "Refused", "revision 2 was refused: it was wrong; revision 1")),
        (facts(2, 1, rollout()), True, ("False", "Suspended", "spec.suspend is set")),
    ],
    ids=["unchecked", "passed", "checking", "the-first", "refused", "suspended"],
)
def test_ready_names_the_revision_that_is_wanted_and_the_one_that_serves(found: Facts, suspended: bool, said: tuple[str, str, str]) -> None:  # noqa: FBT001 - a table
    *others, ready = conditions_of(found, Troubles(), suspended=suspended)
    assert (ready.type, ready.status, ready.reason) == ("Ready", *said[:2])
    assert said[2] in ready.message
    assert [each.type for each in (*others, ready)] == list(CONDITIONS)
    assert all(each.status == "True" and each.observed_generation == 5 for each in others)


@pytest.mark.parametrize(
    ("troubles", "type_", "reason"),
    [
        (Troubles(not_allowed=LACK), "Accepted", "NotAllowed"),
        (Troubles(missing=LACK), "ResolvedRefs", "NotResolved"),
        (Troubles(unfit=LACK), "Compatible", "NotSupported"),
        (Troubles(unread="Object contains unknown field `newer`"), "Compatible", "NotUnderstood"),
    ],
    ids=["not-allowed", "missing", "unfit", "unread"],
)
def test_what_is_wrong_is_said_of_its_condition_and_of_ready(troubles: Troubles, type_: str, reason: str) -> None:
    found = {each.type: each for each in conditions_of(facts(2, 2), troubles, suspended=False)}
    assert (found[type_].status, found[type_].reason) == ("False", reason)
    assert (found["Ready"].status, found["Ready"].reason) == ("False", "NotReady")
    assert found["Ready"].message.startswith(f"{type_}: ")
    assert sum(each.status == "False" for each in found.values()) == 2


def test_a_change_elsewhere_moves_no_time_of_what_is_so() -> None:
    later = THEN + timedelta(hours=1)
    good = conditions_of(facts(2, 2), Troubles(since=later), suspended=False)
    assert {each.last_transition_time for each in good} == {THEN}
    bad = conditions_of(facts(2, 2), Troubles(missing=LACK, since=later), suspended=False)
    assert [each.type for each in bad if each.last_transition_time == later] == ["ResolvedRefs", "Ready"]


@pytest.mark.parametrize(
    ("run", "told"),
    [
        ({}, "its run is about to be started"),
        ({"run_state": "queued"}, f"run {RUN} waits for a worker"),
        ({"run_state": "queued", "gate": "agent"}, f"run {RUN} waits for a slot of its agent (limits.concurrentRuns)"),
        ({"run_state": "suspended", "suspended_by": "tenant"}, f"run {RUN} is held, for its tenant is suspended"),
        ({"run_state": "suspended", "suspended_by": "budget"}, f"run {RUN} is held, for the tenant's budget is spent"),
        ({"run_state": "suspended", "suspended_by": "run"}, f"run {RUN} is held until somebody resumes it"),
        ({"run_state": "running"}, f"run {RUN} is worked on"),
        ({"run_state": "needs_review"}, f"run {RUN} needs a person's review"),
    ],
    ids=["new", "no-worker", "no-slot", "tenant", "budget", "person", "running", "review"],
)
def test_a_check_says_what_it_waits_for(run: dict[str, str], told: str) -> None:
    assert standing(rollout(**run)) == told
