"""The person who decides about unsafe calls of which nobody knows whether they were made: looks at the witness, and says so."""

import asyncio
import random
from pathlib import Path
from typing import Any

from chaos import facts
from chaos.client import Client, Refused
from chaos.ledger import Ledger

LOOK_SECONDS = 0.5
RETRIED = 0.7


class Reviewer:
    """Decides for ever about whatever waits for a decision."""

    def __init__(self, client: Client, ledger: Ledger, *, witness: Path, chooser: random.Random) -> None:
        self._client = client
        self._ledger = ledger
        self._witness = witness
        self._chooser = chooser

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                page = await self._client.get("/v1/runs?state=needs_review&limit=200", chooser=self._chooser)
                for run in page["data"]:
                    await self._decide(run["id"], run["session_id"])
            except Refused:
                continue  # the ledger has it

    async def _decide(self, run: str, session: str) -> None:
        call = await self._in_doubt(run, session)
        mark = call["arguments"]["mark"]
        done = any(
            line["phase"] == "effect" and line["mark"] == mark and line["key"].startswith(f"{run}:")
            for line in facts.witness(self._witness)
        )
        decision = "done" if done else "retry" if self._chooser.random() < RETRIED else "fail"
        body: dict[str, Any] = {"as": decision, **({"answer": mark} if done else {})}
        decisions = self._ledger.decisions.setdefault(run, [])
        decisions.append(decision)
        key = f"review-{run}-{len(decisions)}"
        if not await self._client.decide(f"/v1/runs/{run}/resume", body, key=key, chooser=self._chooser):
            decisions.pop()  # somebody has canceled it

    async def _in_doubt(self, run: str, session: str) -> dict[str, Any]:
        after, found = 0, dict[str, Any]()
        while True:
            page = await self._client.get(f"/v1/sessions/{session}/events?limit=200&after={after}", chooser=self._chooser)
            for event in page["data"]:
                after = event["seq"]
                if event["run_id"] == run and event["type"] == "run.needs_review":
                    found = event["data"]
            if not page["has_more"]:
                return found
