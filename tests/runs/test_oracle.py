"""The oracle is worth something: it is silent over a right history, and names each kind of damage."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from runs.oracle import violations

MARKS = frozenset({"pay", "send"})


def history() -> dict[str, list[dict[str, Any]]]:
    """A run of two calls, one keyed and repeated after a crash, one unsafe; and one that went to review."""

    def event(run: str, seq: int, type_: str, step: str | None = None, **data: Any) -> dict[str, Any]:
        return {"session_id": f"session-{run}", "run_id": run, "seq": seq, "type": type_, "step": step, "data": data}

    def line(phase: str, effect: str, key: str, mark: str) -> dict[str, Any]:
        return {"phase": phase, "effect": effect, "key": key, "mark": mark, "pid": 1}

    return {
        "runs": [
            {"id": "a", "session_id": "session-a", "state": "completed"},
            {"id": "b", "session_id": "session-b", "state": "needs_review"},
        ],
        "events": [
            event("a", 1, "run.queued"),
            event("a", 2, "run.started"),
            event("a", 3, "tool.called", "2", effect="keyed"),
            event("a", 4, "run.resumed"),
            event("a", 5, "tool.completed", "2"),
            event("a", 6, "tool.called", "4", effect="unsafe"),
            event("a", 7, "tool.completed", "4"),
            event("a", 8, "run.completed"),
            event("b", 1, "run.queued"),
            event("b", 2, "tool.called", "2", effect="unsafe"),
            event("b", 3, "run.needs_review"),
        ],
        "witness": [
            line("begin", "keyed", "a:2", "pay"),
            line("effect", "keyed", "a:2", "pay"),
            line("begin", "keyed", "a:2", "pay"),
            line("effect", "keyed", "a:2", "pay"),
            line("begin", "unsafe", "a:4", "send"),
            line("effect", "unsafe", "a:4", "send"),
            line("begin", "unsafe", "b:2", "send"),
        ],
    }


def test_a_right_history_is_passed() -> None:
    assert violations(**history(), marks=MARKS) == []


def double_unsafe(facts: dict[str, list[dict[str, Any]]]) -> None:
    facts["witness"].append(facts["witness"][4])


def second_key(facts: dict[str, list[dict[str, Any]]]) -> None:
    facts["witness"][2]["key"] = "a:9"


def gap(facts: dict[str, list[dict[str, Any]]]) -> None:
    del facts["events"][4]


def double_step(facts: dict[str, list[dict[str, Any]]]) -> None:
    facts["events"].insert(5, {**facts["events"][4], "seq": 6})


def lost_run(facts: dict[str, list[dict[str, Any]]]) -> None:
    facts["runs"][0]["state"] = "running"


def double_end(facts: dict[str, list[dict[str, Any]]]) -> None:
    facts["events"].insert(8, {**facts["events"][7], "seq": 9})


def lost_effect(facts: dict[str, list[dict[str, Any]]]) -> None:
    del facts["witness"][4:6]


def needless_review(facts: dict[str, list[dict[str, Any]]]) -> None:
    facts["events"][9]["data"]["effect"] = "keyed"


def silent_completion(facts: dict[str, list[dict[str, Any]]]) -> None:
    facts["runs"][1]["state"] = "completed"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (double_unsafe, "the unsafe call a:4 was made 2 times"),
        (second_key, "pay was done under the keys ['a:2', 'a:9']"),
        (gap, "the log has a gap"),
        (double_step, "step 2 has 2 times tool.completed"),
        (lost_run, "lost: it is running"),
        (double_end, "2 times run.completed"),
        (lost_effect, "completed without the effects ['send']"),
        (needless_review, "sent to review without a reason"),
        (silent_completion, "nobody knows of steps ['2']"),
    ],
)
def test_each_damage_is_named(damage: Callable[[dict[str, list[dict[str, Any]]]], None], told: str) -> None:
    facts = copy.deepcopy(history())
    damage(facts)
    assert told in "\n".join(violations(**facts, marks=MARKS))
