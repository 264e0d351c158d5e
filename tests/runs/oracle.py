"""Says what a log and the witness of tools' effects must never show, whatever was killed or frozen meanwhile.

Knows nothing of how runs are driven; test_oracle.py shows that it sees each kind of damage.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def violations(runs: Sequence[Row], events: Sequence[Row], witness: Sequence[Row], *, marks: frozenset[str]) -> list[str]:
    """Everything that is wrong.

    `runs`: id, session_id, state. `events`: session_id, run_id, seq, type, step, data, in the order of (session_id, seq).
    `witness`: phase, effect, key, mark. `marks`: those of the calls that each completed run must have made.
    """
    found: list[str] = []
    for run in runs:
        own = [event for event in events if event["run_id"] == run["id"]]
        found.extend(f"run {run['id']}: {told}" for told in _of_run(run, own, witness, marks))
    for session in {run["session_id"] for run in runs}:
        numbers = [event["seq"] for event in events if event["session_id"] == session]
        if numbers != list(range(1, len(numbers) + 1)):
            found.append(f"session {session}: the log has a gap: {numbers}")
    return found


def _of_run(run: Row, own: Sequence[Row], witness: Sequence[Row], marks: frozenset[str]) -> list[str]:
    found: list[str] = []
    types = Counter(event["type"] for event in own)
    open_unsafe = {event["step"] for event in own if event["type"] == "tool.called" and event["data"]["effect"] == "unsafe"}
    open_unsafe -= {event["step"] for event in own if event["type"] == "tool.completed"}
    if run["state"] not in ("completed", "needs_review"):
        found.append(f"lost: it is {run['state']}")
    if types["run.completed"] != (run["state"] == "completed"):
        found.append(f"{types['run.completed']} times run.completed, and it is {run['state']}")
    if run["state"] == "needs_review" and not open_unsafe:
        found.append("sent to review without a reason")
    if run["state"] == "completed" and open_unsafe:
        found.append(f"completed, and nobody knows of steps {sorted(open_unsafe)}")
    steps = Counter((event["step"], event["type"]) for event in own if event["step"] is not None)
    found.extend(f"step {step} has {count} times {type_}" for (step, type_), count in steps.items() if count > 1)
    mine = [line for line in witness if line["key"].startswith(f"{run['id']}:")]
    begun = Counter(line["key"] for line in mine if line["effect"] == "unsafe" and line["phase"] == "begin")
    found.extend(f"the unsafe call {key} was made {count} times" for key, count in begun.items() if count > 1)
    keys: dict[str, set[str]] = {}
    for line in mine:
        keys.setdefault(line["mark"], set()).add(line["key"])
    found.extend(f"{mark} was done under the keys {sorted(many)}" for mark, many in keys.items() if len(many) > 1)
    done = {line["mark"] for line in mine if line["phase"] == "effect"}
    if run["state"] == "completed" and not marks <= done:
        found.append(f"completed without the effects {sorted(marks - done)}")
    return found
