"""The load: shapes of runs, each a small play of one client. Another shape is another function in `SHAPES`.

A shape says what it was promised (`Visit.start` writes it down) and nothing of what is hurt meanwhile.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from chaos.client import Client
from chaos.ledger import Ledger, Promise
from runs.engine import ENDED, TOOLS, call, script
from samples import agent

EFFECTS = ("read", "idempotent", "keyed", "unsafe")
FAN = (["witness_keyed", "pay", 0.3], ["witness_unsafe", "send", 0.2], ["witness_read", "look", 0.1], ["witness_idempotent", "set", 0.4])
AGENTS: tuple[dict[str, Any], ...] = (
    agent("worker-bee", tools=TOOLS),
    agent("talker", tools=TOOLS),
    agent("fan", tools=TOOLS, runtime={"name": "fan", "config": {"calls": [list(each) for each in FAN]}}),
)
LOOK_SECONDS = 0.3
DOUBLE_SUBMIT = 0.15


class Visit:
    """One client's play of one shape."""

    def __init__(self, client: Client, ledger: Ledger, *, shape: str, name: str, chooser: random.Random) -> None:
        self.chooser = chooser
        self._client = client
        self._ledger = ledger
        self._shape = shape
        self._name = name
        self._count = 0

    async def session(self, agent_name: str) -> str:
        """A new session."""
        body = await self._client.post("/v1/sessions", {"agent": agent_name}, key=self._nonce(), chooser=self.chooser, expect=201)
        return body["id"]

    async def start(
        self, agent_name: str, turns: list[dict[str, Any]] | None, *, marks: frozenset[str], session: str | None = None
    ) -> Promise:
        """Start a run whose model makes `turns` and then says the nonce; None: a runtime that needs no model."""
        nonce = self._nonce()
        promise = Promise(nonce, self._shape, marks, output=None if turns is None else nonce)
        self._ledger.promises[nonce] = promise
        body: dict[str, Any] = {"input": nonce if turns is None else script(*turns, {"text": nonce})}
        if session is not None:
            body["session_id"] = session
        # Impatient clients send a request twice at once: to both, one run is the answer.
        times = 2 if self.chooser.random() < DOUBLE_SUBMIT else 1
        path = f"/v1/agents/{agent_name}/runs"
        answers = await asyncio.gather(*(self._client.post(path, body, key=nonce, chooser=self.chooser) for _ in range(times)))
        promise.ids.update(answer["id"] for answer in answers)
        promise.session = answers[0]["session_id"]
        if session is not None:
            self._ledger.queues.setdefault(session, []).append(nonce)
        return promise

    async def cancel(self, promise: Promise) -> None:
        """Ask for a run to be canceled."""
        promise.cancel = True
        await self._client.post(f"/v1/runs/{min(promise.ids)}/cancel", None, key=self._nonce(), chooser=self.chooser)

    async def ended(self, promise: Promise) -> dict[str, Any]:
        """The run once it has ended."""
        while True:
            run = await self._client.get(f"/v1/runs/{min(promise.ids)}", chooser=self.chooser)
            if run["state"] in ENDED:
                return run
            await asyncio.sleep(LOOK_SECONDS)

    async def follow(self, promise: Promise) -> None:
        """Read the session's stream to the run's end."""
        await self._client.follow(promise.session, min(promise.ids), chooser=self.chooser)

    def _nonce(self) -> str:
        self._count += 1
        return f"{self._name}-{self._count}"

    def turn(self, effect: str, mark: str, *, longest: float = 0.3) -> dict[str, Any]:
        """A call that takes some time to its effect and some after it: a kill can fall on either side."""
        return call(effect, mark, seconds=self.chooser.uniform(0.0, longest), rest=self.chooser.uniform(0.0, longest))


async def one_of_each(visit: Visit) -> None:
    """Every class of effect in one run, in any order."""
    effects = visit.chooser.sample(EFFECTS, len(EFFECTS))
    promise = await visit.start("worker-bee", [visit.turn(each, each) for each in effects], marks=frozenset(effects))
    await visit.ended(promise)


async def safe_steps(visit: Visit) -> None:
    """Many steps that may be repeated."""
    names = {f"{effect}-{number}": effect for number, effect in enumerate(visit.chooser.choices(EFFECTS[:3], k=8))}
    promise = await visit.start("worker-bee", [visit.turn(effect, name) for name, effect in names.items()], marks=frozenset(names))
    await visit.ended(promise)


async def payments(visit: Visit) -> None:
    """Calls that must never be made twice, short: most go well."""
    names = [f"send-{number}" for number in range(3)]
    promise = await visit.start("worker-bee", [visit.turn("unsafe", name, longest=0.05) for name in names], marks=frozenset(names))
    await visit.ended(promise)


async def gathered(visit: Visit) -> None:
    """Branches side by side."""
    promise = await visit.start("fan", None, marks=frozenset(str(each[1]) for each in FAN))
    await visit.ended(promise)


async def conversation(visit: Visit) -> None:
    """A session with several runs, posted without waiting, and somebody who watches it."""
    session = await visit.session("talker")
    promises: list[Promise] = []
    for number in range(visit.chooser.randint(2, 4)):
        effect = visit.chooser.choice(EFFECTS)
        promises.append(
            await visit.start(
                "talker", [visit.turn(effect, f"{effect}-{number}")], marks=frozenset({f"{effect}-{number}"}), session=session
            )
        )
    await visit.follow(promises[-1])


async def changed_mind(visit: Visit) -> None:
    """A run that somebody cancels, perhaps too late, perhaps twice."""
    promise = await visit.start(
        "worker-bee", [visit.turn("keyed", "pay", longest=1.0), visit.turn("read", "look")], marks=frozenset({"pay", "look"})
    )
    await asyncio.sleep(visit.chooser.uniform(0.0, 2.0))
    for _ in range(visit.chooser.randint(1, 2)):
        await visit.cancel(promise)
    await visit.ended(promise)


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
)
