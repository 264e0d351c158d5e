"""A client as it should be: it tries again elsewhere with the same Idempotency-Key until it has an answer.

Knows the wire format and nothing of what is hurt meanwhile.
"""

import asyncio
import contextlib
import json
import random
from typing import Any

import httpx2

from chaos.ledger import Ledger, Refusal

PAUSE_SECONDS = 0.2
FINAL = frozenset({"run.completed", "run.failed", "run.canceled"})


class Refused(Exception):
    """An answer that trying again will not change."""


class Client:
    """Speaks to all control planes alike; `chooser` decides which is asked next."""

    def __init__(self, replicas: list[httpx2.AsyncClient], ledger: Ledger) -> None:
        self._replicas = replicas
        self._ledger = ledger

    async def post(self, path: str, body: Any, *, key: str, chooser: random.Random, expect: int = 202) -> dict[str, Any]:
        """POST until it is answered. Raises `Refused`."""
        answer = await self._until_answered("POST", path, chooser, json=body, headers={"idempotency-key": key})
        if answer.status_code != expect:
            raise self._refused(f"POST {path}", answer)
        return answer.json()

    async def decide(self, path: str, body: Any, *, key: str, chooser: random.Random) -> bool:
        """POST what may have been settled meanwhile; whether it was we who settled it. Raises `Refused`."""
        answer = await self._until_answered("POST", path, chooser, json=body, headers={"idempotency-key": key})
        if answer.status_code not in (200, 202, 409):
            raise self._refused(f"POST {path}", answer)
        return answer.status_code != 409

    async def get(self, path: str, *, chooser: random.Random) -> dict[str, Any]:
        """GET until it is answered. Raises `Refused`."""
        answer = await self._until_answered("GET", path, chooser)
        if answer.status_code != 200:
            raise self._refused(f"GET {path}", answer)
        return answer.json()

    async def follow(self, session: str, until: str, *, chooser: random.Random) -> None:
        """Read a session's stream up to the end of run `until`, going on where it broke off, and write down its numbers."""
        seen = self._ledger.followed.setdefault(session, [])
        while True:
            replica = chooser.choice(self._replicas)
            with contextlib.suppress(httpx2.TransportError):
                if await self._read(replica, session, until, seen):
                    return
            await asyncio.sleep(PAUSE_SECONDS)

    async def _read(self, replica: httpx2.AsyncClient, session: str, until: str, seen: list[int]) -> bool:
        """Whether the stream has come to its end."""
        headers = {"last-event-id": str(seen[-1])} if seen else {}
        async with replica.stream("GET", f"/v1/sessions/{session}/events/stream", params={"until": until}, headers=headers) as answer:
            if answer.status_code != 200:
                await answer.aread()
                if not _temporary(answer):
                    raise self._refused(f"GET stream of {session}", answer)
                return False
            async for line in answer.aiter_lines():
                event: dict[str, Any] = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if "seq" in event:
                    seen.append(event["seq"])
                    if event["run_id"] == until and event["type"] in FINAL:
                        return True
        return False

    async def _until_answered(self, method: str, path: str, chooser: random.Random, **options: Any) -> httpx2.Response:
        while True:
            replica = chooser.choice(self._replicas)
            try:
                answer = await replica.request(method, path, **options)
            except httpx2.TransportError:
                answer = None
            if answer is not None and not _temporary(answer):
                return answer
            await asyncio.sleep(PAUSE_SECONDS * chooser.uniform(0.5, 1.5))

    def _refused(self, request: str, answer: httpx2.Response) -> Refused:
        self._ledger.refusals.append(Refusal(request, f"{answer.status_code} {answer.headers.get('content-type')} {answer.text[:300]}"))
        return Refused(request)


def _temporary(answer: httpx2.Response) -> bool:
    """Whether the answer itself asks to come again."""
    if answer.headers.get("content-type") != "application/problem+json":
        return False
    return bool(answer.json()["retryable"])
