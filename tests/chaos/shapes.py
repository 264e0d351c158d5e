"""The load: shapes of runs, each a small play of one client. Another shape is another function in `SHAPES`.

A shape says what it was promised (`Visit` writes it down) and nothing of what is hurt meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from chaos.visit import Visit
from runs.engine import TOOLS
from samples import agent

EFFECTS = ("read", "idempotent", "keyed", "unsafe")
FAN = (["witness_keyed", "pay", 0.3], ["witness_unsafe", "send", 0.2], ["witness_read", "look", 0.1], ["witness_idempotent", "set", 0.4])
STEPS: dict[str, Any] = {"runtime": {"name": "steps"}}
AGENTS: tuple[dict[str, Any], ...] = (
    agent("talker", tools=TOOLS),
    agent("fan", tools=TOOLS, runtime={"name": "fan", "config": {"calls": [list(each) for each in FAN]}}),
    agent("stepper", tools=TOOLS, **STEPS),
    agent("child", tools=TOOLS, **STEPS),
    agent("parent", tools=[*TOOLS, {"agent": "child"}], **STEPS),
    agent("careful", tools=[{"plugin": "witness", "requireApproval": ["witness_unsafe"]}], **STEPS),
)


async def one_of_each(visit: Visit) -> None:
    """Every class of effect in one run, in any order."""
    effects = visit.chooser.sample(EFFECTS, len(EFFECTS))
    promise = await visit.say("talker", [visit.turn(each, each) for each in effects], marks=effects)
    await visit.ended(promise)


async def safe_steps(visit: Visit) -> None:
    """Many steps that may be repeated."""
    names = {f"{effect}-{number}": effect for number, effect in enumerate(visit.chooser.choices(EFFECTS[:3], k=8))}
    promise = await visit.say("talker", [visit.turn(effect, name) for name, effect in names.items()], marks=list(names))
    await visit.ended(promise)


async def payments(visit: Visit) -> None:
    """Calls that must never be made twice, short: most go well."""
    names = [f"send-{number}" for number in range(3)]
    promise = await visit.say("talker", [visit.turn("unsafe", name, longest=0.05) for name in names], marks=names)
    await visit.ended(promise)


async def gathered(visit: Visit) -> None:
    """Branches side by side."""
    promise = await visit.start("fan", lambda nonce: nonce, marks=[str(each[1]) for each in FAN])
    await visit.ended(promise)


async def conversation(visit: Visit) -> None:
    """A session with several runs, posted without waiting, and somebody who watches it."""
    session = await visit.session("talker")
    last = None
    for number in range(visit.chooser.randint(2, 4)):
        effect = visit.chooser.choice(EFFECTS)
        mark = f"{effect}-{number}"
        last = await visit.say("talker", [visit.turn(effect, mark)], marks=[mark], session=session)
    assert last is not None
    await visit.follow(last)


async def changed_mind(visit: Visit) -> None:
    """A run that somebody cancels, perhaps too late, perhaps twice."""
    turns = [visit.turn("keyed", "pay", longest=1.0), visit.turn("read", "look")]
    promise = await visit.say("talker", turns, marks=["pay", "look"])
    await asyncio.sleep(visit.chooser.uniform(0.0, 2.0))
    for _ in range(visit.chooser.randint(1, 2)):
        await visit.cancel(promise)
    await visit.ended(promise)


async def sleeper(visit: Visit) -> None:
    """A run that sleeps in the database between two payments; some begin later, too."""
    steps = [["tool", "witness_keyed", "before", 0.1], ["sleep", visit.chooser.uniform(0.3, 2.5)], ["tool", "witness_unsafe", "after", 0.1]]
    later = {"start_at": (datetime.now(UTC) + timedelta(seconds=1)).isoformat()} if visit.chooser.random() < 0.3 else {}
    promise = await visit.do("stepper", steps, ["before", "slept", "after"], marks=["before", "after"], **later)
    await visit.ended(promise)


async def family(visit: Visit) -> None:
    """A run that calls others side by side, and waits for what they say."""
    names = [f"child-{number}" for number in range(visit.chooser.randint(1, 3))]
    branches = [[["call", "child", [["tool", "witness_keyed", name, 0.1], ["sleep", 0.2]]]] for name in names]
    promise = await visit.do("parent", [["gather", *branches]], [[[[name, "slept"]] for name in names]], marks=[])
    await visit.ended(promise)


async def question(visit: Visit) -> None:
    """A run that asks a person, and does what it is told."""
    answer = {"go": visit.chooser.randint(0, 9)}
    promise = await visit.do("stepper", [["ask", "What now?"], ["tool", "witness_keyed", "done", 0]], [answer, "done"], marks=["done"])
    approval = await visit.wait(promise, "approval")
    if approval is not None:
        await visit.decide(f"/v1/approvals/{approval}/decide", {"decision": "answer", "answer": answer})
    await visit.ended(promise)


async def approved(visit: Visit) -> None:
    """An irreversible call that a person allows."""
    promise = await visit.do("careful", [["tool", "witness_unsafe", "send", 0.1]], ["send"], marks=["send"])
    approval = await visit.wait(promise, "approval")
    if approval is not None:
        await visit.decide(f"/v1/approvals/{approval}/decide", {"decision": "approve"})
    await visit.ended(promise)


async def awaited(visit: Visit) -> None:
    """A run that waits for an event, which is sent from outside, early or late."""
    promise = await visit.do("stepper", [["event", "paid", None], ["tool", "witness_unsafe", "ship", 0]], [7, "ship"], marks=["ship"])
    await asyncio.sleep(visit.chooser.uniform(0.0, 1.0))
    await visit.decide(f"/v1/sessions/{promise.session}/events/paid", {"data": 7})
    await visit.ended(promise)


async def published(visit: Visit) -> None:
    """An event that one run tells another."""
    name = visit.nonce()
    reader = await visit.do("stepper", [["event", name, None]], ["news"], marks=[])
    await visit.wait(reader, "event")
    writer = await visit.do("stepper", [["publish", name, "news"]], ["published"], marks=[])
    await visit.ended(writer)
    await visit.ended(reader)


async def held(visit: Visit) -> None:
    """A run that somebody holds and lets go on."""
    promise = await visit.say("talker", [visit.turn("keyed", f"pay-{n}") for n in range(4)], marks=[f"pay-{n}" for n in range(4)])
    await visit.decide(f"/v1/runs/{min(promise.ids)}/suspend", None)
    await asyncio.sleep(visit.chooser.uniform(0.2, 1.5))
    await visit.let_go(promise)


class Shape(msgspec.Struct, frozen=True):
    """A play and how often it is chosen."""

    name: str
    weight: int
    play: Callable[[Visit], Awaitable[None]]


SHAPES = (
    Shape("one_of_each", 4, one_of_each),
    Shape("safe_steps", 3, safe_steps),
    Shape("payments", 2, payments),
    Shape("gathered", 3, gathered),
    Shape("conversation", 3, conversation),
    Shape("changed_mind", 2, changed_mind),
    Shape("sleeper", 2, sleeper),
    Shape("family", 4, family),
    Shape("question", 1, question),
    Shape("approved", 2, approved),
    Shape("awaited", 2, awaited),
    Shape("published", 2, published),
    Shape("held", 1, held),
)
