"""Says what a world that has come to rest must never show. Knows rows and what tools have told, and nothing of how it came about."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from hansa.runs.log.joining import join_past
from hansa.runs.log.keeping import Values
from hansa.runs.model import EventType, Past, Recorded, RunView
from hansa.runs.replay import History, replay_history
from simulation.database import ModelDatabase
from simulation.programs import Catalog
from simulation.programs import Line as Witnessed
from simulation.rows import FINAL, EventRow, RunRow
from simulation.tables import TENANT, decoded
from simulation.wire import Line, LinkedDatabase

REPEATED = frozenset({"tool.called", "review.decided"})
"""Events that a step may have several of: after a review a call is begun again."""


def violations(model: ModelDatabase, witness: Sequence[Witnessed], bill: Sequence[int], *, left: set[Any]) -> list[str]:
    """Everything that is wrong. `bill`: what the model was asked for; `left`: runs that a person has left to their review."""
    found = _of_money(model, sum(bill))
    found += [f"a message was left: {message.kind}" for message in model.outbox.values()]
    found += [f"session {each.id} has gaps" for each in model.sessions.values() if [e.seq for e in each.events] != _numbers(each.events)]
    for name, agent in model.agents.items():
        held = sum(run.slot for run in model.runs.values() if run.agent == name)
        if agent.bound is not None and not held == agent.held <= agent.bound:
            found.append(f"agent {name}: {held} runs have slots, {agent.held} are counted, {agent.bound} are allowed")
    for run in model.runs.values():
        own = [line for line in witness if line.key.startswith(f"{run.id}:")]
        found += [f"run {run.id}: {told}" for told in [*_of_end(model, run, left), *_of_log(run.events), *_of_effects(model, run, own)]]
    return found


def _of_money(model: ModelDatabase, bill: int) -> list[str]:
    budget = model.budget
    if budget is None or budget.amount is None:
        return []
    used = sum(each.cost + each.lost_cost for each in model.usage.values())
    rules = {
        f"over: {budget.spent} of {budget.amount} is spent": budget.spent > budget.amount,
        f"{budget.spent} is spent, and usage says {used}": budget.spent != used,
        f"the bill is {bill}, and {budget.spent} was counted": budget.charges_lost and bill > budget.spent,
        f"ghost: {budget.reserved} is reserved, {len(model.reservations)} reservations": bool(budget.reserved or model.reservations),
    }
    return [*model.overdrawn, *(told for told, broken in rules.items() if broken)]


def _numbers(events: Sequence[EventRow]) -> list[int]:
    return list(range(1, len(events) + 1))


def _of_end(model: ModelDatabase, run: RunRow, left: set[Any]) -> list[str]:
    types = Counter(event.type for event in run.events)
    ends = sum(types[f"run.{state}"] for state in FINAL)
    if run.state == "needs_review" and run.id in left:
        return [] if ends == 0 else ["it needs review and has ended"]
    if run.state not in FINAL:
        return [f"stuck: it is {run.state} (gate {run.gate}), waits: {[(w.step, w.kind) for w in model.waits_of(run.id)]}"]
    found = [f"it is {run.state} and has {dict(types)}"] if ends != 1 or types[f"run.{run.state}"] != 1 else []
    found += [f"it has ended and waits at {wait.step}" for wait in model.waits_of(run.id)]
    found += [f"it has ended and asks {each.id}" for each in model.approvals.values() if each.run_id == run.id and each.state == "pending"]
    return found


def _of_log(events: Sequence[EventRow]) -> list[str]:
    found: list[str] = []
    epoch = 0
    for number, event in enumerate(events):
        if (event.type == "run.queued") != (number == 0):
            found.append(f"event {event.seq} is {event.type}")
        if event.type.removeprefix("run.") in FINAL and number != len(events) - 1:
            found.append("its log goes on after its end")
        if event.epoch and event.epoch < epoch:
            found.append(f"event {event.seq} was written under epoch {event.epoch}, after {epoch}")
        epoch = max(epoch, event.epoch)
    steps = Counter((event.step, event.type) for event in events if event.step is not None and event.type not in REPEATED)
    return found + [f"step {step} has {count} times {type_}" for (step, type_), count in steps.items() if count > 1]


def _of_effects(model: ModelDatabase, run: RunRow, witness: Sequence[Witnessed]) -> list[str]:
    events = run.events
    retried = Counter(f"{run.id}:{event.step}" for event in events if event.type == "review.decided" and '"retry"' in event.data)
    begun = Counter(line.key for line in witness if line.effect == "unsafe" and line.phase == "begin")
    found = [f"the unsafe call {key} was made {count} times" for key, count in begun.items() if count > 1 + retried[key]]
    keys: dict[str, set[str]] = {}
    for line in witness:
        if line.effect != "read":  # one that is only looked at is not announced, so a path not taken again leaves no trace
            keys.setdefault(line.mark, set()).add(line.key)
    found += [f"{mark} was done under {sorted(many)}" for mark, many in keys.items() if len(many) > 1]
    decided = {event.step for event in events if event.type == "review.decided"}
    done = {line.key for line in witness if line.phase == "effect"}
    for event in events:
        if event.type != "tool.completed" or event.step in decided or not decoded(event.data)["name"].startswith("do_"):
            continue
        refused = "not made" in event.data
        if (f"{run.id}:{event.step}" in done) == refused:
            found.append(f"step {event.step} says {'not made' if refused else 'done'}, and the witness says otherwise")
    announced = {event.step for event in events if event.type == "tool.called"}
    told = {line.key.partition(":")[2] for line in witness if line.effect != "read"}
    return found + [f"step {step} was done unannounced" for step in sorted(told - announced)]


async def diverged(model: ModelDatabase, catalog: Catalog) -> list[str]:
    """Runs whose replay is another."""
    values, found = Values(LinkedDatabase(Line(model)), catalog.artifacts, 1 << 30), list[str]()
    for run in model.runs.values():
        if run.state == "canceled" and run.epoch == 0:
            continue
        view = RunView(run.id, run.session_id, run.agent, 1, run.state, decoded(run.input), decoded(run.output), decoded(run.error))
        steps = [Recorded(EventType(e.type), e.step, decoded(e.data)) for e in run.events if e.step is not None]
        past = Past(msgspec.json.decode(model.run_history(run), type=list[tuple[Any, Any]]), steps)
        view, past = await join_past(values, TENANT, view, past)
        history = History(view, catalog.worlds[run.agent], past)
        shown = await replay_history(history, catalog.plugins, catalog.surroundings, catalog.connections)
        if not shown.equal:
            found.append(f"run {run.id}: its replay diverges: {shown.diverged_at}")
    return found
