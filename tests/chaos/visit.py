"""One client's play of one shape: it starts runs, writes down what it was promised, and does what people do with runs."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

from chaos.client import Client
from chaos.ledger import ENDED, Ledger, Promise
from runs.engine import call, script

LOOK_SECONDS = 0.3
DOUBLE_SUBMIT = 0.15


class Visit:
    """`chooser` makes all its choices; `name` is unique, and so are the nonces made of it."""

    def __init__(self, client: Client, ledger: Ledger, *, shape: str, name: str, chooser: random.Random) -> None:
        self.chooser = chooser
        self._client = client
        self._ledger = ledger
        self._shape = shape
        self._name = name
        self._count = 0

    def nonce(self) -> str:
        """Text that is nowhere else."""
        self._count += 1
        return f"{self._name}-{self._count}"

    def turn(self, effect: str, mark: str, *, longest: float = 0.3) -> dict[str, Any]:
        """A call that takes some time to its effect and some after it: a kill can fall on either side."""
        return call(effect, mark, seconds=self.chooser.uniform(0.0, longest), rest=self.chooser.uniform(0.0, longest))

    async def session(self, agent_name: str) -> str:
        """A new session."""
        body = await self._client.post("/v1/sessions", {"agent": agent_name}, key=self.nonce(), chooser=self.chooser, expect=201)
        return body["id"]

    async def say(self, agent_name: str, turns: list[dict[str, Any]], *, marks: Sequence[str], session: str | None = None) -> Promise:
        """Start a run whose model makes `turns` and then says the nonce."""
        more = {} if session is None else {"session_id": session}
        return await self.start(
            agent_name, lambda nonce: script(*turns, {"text": nonce}), marks=marks, output=lambda nonce: nonce, more=more
        )

    async def do(self, agent_name: str, steps: list[Any], gives: list[Any], *, marks: Sequence[str], **more: Any) -> Promise:
        """Start a run of the runtime `steps`, which gives the nonce and then `gives`."""
        return await self.start(
            agent_name,
            lambda nonce: [["tool", "witness_read", nonce, 0], *steps],
            marks=marks,
            output=lambda nonce: [nonce, *gives],
            more=more,
        )

    async def start(
        self,
        agent_name: str,
        run_input: Callable[[str], Any],
        *,
        marks: Sequence[str],
        output: Callable[[str], Any] | None = None,
        more: dict[str, Any] | None = None,
    ) -> Promise:
        """Start a run with an input made of a nonce, and write down what it must come to."""
        nonce = self.nonce()
        promise = Promise(nonce, self._shape, frozenset(marks), output=output(nonce) if output else None)
        self._ledger.promises[nonce] = promise
        body = {"input": run_input(nonce), **(more or {})}
        # Impatient clients send a request twice at once: to both, one run is the answer.
        times = 2 if self.chooser.random() < DOUBLE_SUBMIT else 1
        path = f"/v1/agents/{agent_name}/runs"
        answers = await asyncio.gather(*(self._client.post(path, body, key=nonce, chooser=self.chooser) for _ in range(times)))
        promise.ids.update(answer["id"] for answer in answers)
        promise.session = answers[0]["session_id"]
        if "session_id" in body:
            self._ledger.queues.setdefault(promise.session, []).append(nonce)
        return promise

    async def cancel(self, promise: Promise) -> None:
        """Ask for a run to be canceled."""
        promise.cancel = True
        await self._client.post(f"/v1/runs/{min(promise.ids)}/cancel", None, key=self.nonce(), chooser=self.chooser)

    async def decide(self, path: str, body: Any) -> None:
        """POST something that may have been settled meanwhile."""
        await self._client.decide(path, body, key=self.nonce(), chooser=self.chooser)

    async def wait(self, promise: Promise, kind: str) -> str | None:
        """Whom or what the run waits for, once it waits for something of this kind; None when it has ended before."""
        while True:
            run = await self._look(promise)
            keys = [wait["key"] for wait in run["waits"] if wait["kind"] == kind]
            if keys or run["state"] in ENDED:
                return keys[0] if keys else None
            await asyncio.sleep(LOOK_SECONDS)

    async def ended(self, promise: Promise) -> None:
        """Wait until the run has ended."""
        while (await self._look(promise))["state"] not in ENDED:
            await asyncio.sleep(LOOK_SECONDS)

    async def let_go(self, promise: Promise) -> None:
        """Resume a run whenever it is suspended, until it has ended."""
        while True:
            run = await self._look(promise)
            if run["state"] in ENDED:
                return
            if run["state"] == "suspended":
                await self.decide(f"/v1/runs/{run['id']}/resume", {})
            await asyncio.sleep(LOOK_SECONDS)

    async def follow(self, promise: Promise) -> None:
        """Read the session's stream to the run's end."""
        await self._client.follow(promise.session, min(promise.ids), chooser=self.chooser)

    async def _look(self, promise: Promise) -> dict[str, Any]:
        return await self._client.get(f"/v1/runs/{min(promise.ids)}", chooser=self.chooser)
