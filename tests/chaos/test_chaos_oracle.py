"""The oracle is worth something: it is silent over a right history, and names each kind of damage."""

import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from chaos.ledger import Death, Ledger, Promise, Refusal
from chaos.oracle import Event, Facts, Run, Violation, resumes, violations

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
MARKS = frozenset({"pay", "send"})


class History(msgspec.Struct):
    """Everything the oracle is given, to be damaged."""

    ledger: Ledger
    runs: list[Run]
    events: list[Event]
    witness: list[dict[str, Any]]

    def judged(self) -> list[Violation]:
        return violations(self.ledger, Facts(runs=self.runs, events=self.events, witness=self.witness))

    def change(self, run: str, **fields: Any) -> None:
        self.runs = [msgspec.structs.replace(each, **fields) if each.id == run else each for each in self.runs]


def event(session: str, run: str, seq: int, type_: str, *, step: str | None = None, effect: str = "") -> Event:
    return Event(session=session, run=run, seq=seq, type=type_, step=step, at=BEGIN + timedelta(seconds=seq), effect=effect)


def line(phase: str, effect: str, key: str, mark: str) -> dict[str, Any]:
    return {"phase": phase, "effect": effect, "key": key, "mark": mark}


def history() -> History:
    """Two runs of a session, the first taken over after a kill and caller of `f`; two that a person has decided about; one canceled."""
    promises = [
        Promise("n-a", "shape", MARKS, output="n-a", session="s", ids={"a"}),
        Promise("n-b", "shape", frozenset(), session="s", ids={"b"}),
        Promise("n-c", "shape", frozenset({"send"}), session="t", ids={"c"}),
        Promise("n-d", "shape", MARKS, session="u", ids={"d"}, cancel=True),
        Promise("n-e", "shape", MARKS, session="v", ids={"e"}),
    ]
    ledger = Ledger(promises={promise.nonce: promise for promise in promises}, queues={"s": ["n-a", "n-b"]}, followed={"s": [1, 2, 3, 4]})
    ledger.replays["a"] = {"equal": True}
    ledger.deaths.append(Death((BEGIN + timedelta(seconds=4.5)).timestamp(), frozenset({"a", "d"})))
    ledger.decisions = {"c": ["retry"], "e": ["fail"]}
    return History(
        ledger,
        [
            Run(id="a", session="s", queued=1, state="completed", nonce="n-a", output="n-a", error=""),
            Run(id="b", session="s", queued=2, state="completed", nonce="n-b", output=None, error=""),
            Run(id="c", session="t", queued=1, state="completed", nonce="n-c", output=None, error=""),
            Run(id="d", session="u", queued=1, state="canceled", nonce="n-d", output=None, error=""),
            Run(id="e", session="v", queued=1, state="failed", nonce="n-e", output=None, error="review_failed"),
            Run(id="f", session="w", queued=1, state="canceled", nonce="", output=None, error="", parent="a 5"),
        ],
        [
            event("s", "a", 1, "run.queued"),
            event("s", "b", 2, "run.queued"),
            event("s", "a", 3, "run.started"),
            event("s", "a", 4, "tool.called", step="2", effect="keyed"),
            event("s", "a", 5, "run.resumed"),
            event("s", "a", 6, "tool.completed", step="2"),
            event("s", "a", 7, "tool.called", step="4", effect="unsafe"),
            event("s", "a", 8, "tool.completed", step="4"),
            event("s", "a", 9, "run.completed"),
            event("s", "b", 10, "run.started"),
            event("s", "b", 11, "run.completed"),
            event("t", "c", 1, "run.queued"),
            event("t", "c", 2, "run.started"),
            event("t", "c", 3, "tool.called", step="2", effect="unsafe"),
            event("t", "c", 4, "run.needs_review"),
            event("t", "c", 5, "review.decided", step="2"),
            event("t", "c", 6, "tool.called", step="2", effect="unsafe"),
            event("t", "c", 7, "tool.completed", step="2"),
            event("t", "c", 8, "run.completed"),
            event("u", "d", 1, "run.queued"),
            event("u", "d", 2, "run.canceled"),
            event("v", "e", 1, "run.queued"),
            event("v", "e", 2, "tool.called", step="2", effect="unsafe"),
            event("v", "e", 3, "run.needs_review"),
            event("v", "e", 4, "run.failed"),
            event("w", "f", 1, "run.queued"),
            event("w", "f", 2, "run.canceled"),
        ],
        [
            line("begin", "keyed", "a:2", "pay"),
            line("effect", "keyed", "a:2", "pay"),
            line("begin", "keyed", "a:2", "pay"),
            line("effect", "keyed", "a:2", "pay"),
            line("begin", "unsafe", "a:4", "send"),
            line("effect", "unsafe", "a:4", "send"),
            line("begin", "unsafe", "c:2", "send"),
            line("begin", "unsafe", "c:2", "send"),
            line("effect", "unsafe", "c:2", "send"),
        ],
    )


def test_a_right_history_is_passed() -> None:
    assert history().judged() == []


def test_the_time_to_resume_is_that_of_the_runs_in_hand() -> None:
    found = history()
    assert resumes(found.ledger, found.events) == [0.5]


def vanished(found: History) -> None:
    found.runs = [run for run in found.runs if run.id != "b"]


def failed(found: History) -> None:
    found.change("a", state="failed", error="worker_lost")


def canceled_by_nobody(found: History) -> None:
    found.ledger.promises["n-d"].cancel = False


def needless_review(found: History) -> None:
    found.events[13] = msgspec.structs.replace(found.events[13], effect="keyed")


def failure_of_a_review_that_nobody_made(found: History) -> None:
    del found.ledger.decisions["e"]


def retry_that_nobody_asked_for(found: History) -> None:
    del found.ledger.decisions["c"]


def call_with_two_children(found: History) -> None:
    found.runs.append(Run(id="g", session="w", queued=2, state="canceled", nonce="", output=None, error="", parent="a 5"))


def silent_completion(found: History) -> None:
    del found.events[7]


def missing_effect(found: History) -> None:
    del found.witness[5]


def other_output(found: History) -> None:
    found.change("a", output="n-b")


def state_without_its_event(found: History) -> None:
    del found.events[-1]


def two_answers(found: History) -> None:
    found.ledger.promises["n-a"].ids.add("b")


def two_runs(found: History) -> None:
    found.change("b", nonce="n-a")


def unsafe_twice(found: History) -> None:
    found.witness.append(found.witness[4])


def second_key(found: History) -> None:
    found.witness.append(line("effect", "keyed", "a:9", "pay"))


def step_twice(found: History) -> None:
    found.events.insert(6, msgspec.structs.replace(found.events[5], seq=6))


def end_twice(found: History) -> None:
    found.events.append(event("u", "d", 3, "run.canceled"))


def unfinished(found: History) -> None:
    found.change("b", state="running")


def gap(found: History) -> None:
    found.events[-1] = msgspec.structs.replace(found.events[-1], seq=3)


def time_going_back(found: History) -> None:
    found.events[1] = msgspec.structs.replace(found.events[1], at=BEGIN - timedelta(seconds=1))


def overtaking(found: History) -> None:
    found.events[2], found.events[9] = (
        msgspec.structs.replace(found.events[2], run="b"),
        msgspec.structs.replace(found.events[9], run="a"),
    )


def step_after_the_end(found: History) -> None:
    found.events.append(event("u", "d", 3, "tool.completed", step="2"))


def called_after_completed(found: History) -> None:
    found.events.append(event("s", "a", 12, "tool.called", step="2", effect="keyed"))


def queue_jumped(found: History) -> None:
    found.ledger.queues["s"].reverse()


def stream_with_a_hole(found: History) -> None:
    found.ledger.followed["s"] = [1, 2, 4]


def stream_of_what_is_gone(found: History) -> None:
    found.ledger.followed["u"] = [1, 2, 3]


def other_replay(found: History) -> None:
    found.ledger.replays["a"] = {"equal": False}


def refusal(found: History) -> None:
    found.ledger.refusals.append(Refusal("GET /v1/runs/a", "500 internal"))


@pytest.mark.parametrize(
    ("damage", "kind", "told"),
    [
        (vanished, "lost", "run b was accepted and is gone"),
        (failed, "lost", "failed: worker_lost"),
        (canceled_by_nobody, "lost", "nobody asked for it"),
        (needless_review, "lost", "without a reason"),
        (failure_of_a_review_that_nobody_made, "lost", "failed: review_failed"),
        (retry_that_nobody_asked_for, "doubled", "the unsafe call send was made 2 times, and 0 more were asked for"),
        (call_with_two_children, "doubled", "the call a 5 gave 2 runs"),
        (silent_completion, "lost", "nobody knows of steps ['4']"),
        (missing_effect, "lost", "without the effects ['send']"),
        (other_output, "lost", "said 'n-b' at its end"),
        (state_without_its_event, "lost", "its log ends with nothing"),
        (two_answers, "doubled", "gave 2 runs"),
        (two_runs, "doubled", "gave 2 runs"),
        (unsafe_twice, "doubled", "run a: the unsafe call send was made 2 times"),
        (second_key, "doubled", "under the keys ['a:2', 'a:9']"),
        (step_twice, "doubled", "step 2 has 2 times tool.completed"),
        (end_twice, "doubled", "2 times run.canceled"),
        (unfinished, "stuck", "(shape n-b) is running"),
        (gap, "gaps", "numbers [2]"),
        (time_going_back, "reordered", "2 was written before 1"),
        (overtaking, "reordered", "run b was begun before ['a'] had ended"),
        (step_after_the_end, "reordered", "has a step after its end"),
        (called_after_completed, "reordered", "step 2 was called after it was completed"),
        (queue_jumped, "reordered", "posted ['n-b', 'n-a'], queued ['n-a', 'n-b']"),
        (stream_with_a_hole, "reordered", "a stream told the numbers [1, 2, 4]"),
        (stream_of_what_is_gone, "lost", "a stream told of event 3"),
        (other_replay, "reordered", "its replay is not equal"),
        (refusal, "refused", "500 internal"),
    ],
)
def test_each_damage_is_named(damage: Callable[[History], None], kind: str, told: str) -> None:
    found = copy.deepcopy(history())
    damage(found)
    assert [each for each in found.judged() if each.kind == kind and told in each.told], found.judged()
