"""A thousand agents by objects:apply: made, sent again, changed, one of them changed, deleted; each with its row in the audit trail."""

import asyncio
import statistics
import time
from typing import Any

import httpx2

from bench.figures import Figures
from samples import SCRIPTED, agent
from stack import Stack

MANY, BATCH, ONES = 1000, 100, 20
OWNER = {"manager": "git", "origin": "https://git.example/bench.git//"}


def item(number: int, mark: str) -> dict[str, Any]:
    """An agent as a source sends it."""
    return {"manifest": agent(f"bench-{number}", description=mark), "source": {"file": "agents.yaml", "line": number, "column": 1}}


async def sent(client: httpx2.AsyncClient, items: list[dict[str, Any]], action: str) -> float:
    """Seconds to apply them."""
    begin = time.perf_counter()
    for first in range(0, len(items), BATCH):
        answer = await client.post("/v1/objects:apply", json={**OWNER, "commit": "c0ffee", "objects": items[first : first + BATCH]})
        assert {each["action"] for each in answer.json()["results"]} == {action}, answer.text
    return time.perf_counter() - begin


async def measured(stack: Stack) -> dict[str, float]:
    async with stack.client(stack.serve(HANSA_LOG_LEVEL="warning")) as client:
        assert (await client.post("/v1/objects:apply", json={"objects": [{"manifest": SCRIPTED}]})).json()["failed"] == 0
        found = {
            "created": await sent(client, [item(number, "one") for number in range(MANY)], "created"),
            "unchanged": await sent(client, [item(number, "one") for number in range(MANY)], "unchanged"),
            "configured": await sent(client, [item(number, "two") for number in range(MANY)], "configured"),
        }
        ones = [await sent(client, [item(7, f"three {number}")], "configured") for number in range(ONES)]
        found["one"] = statistics.median(ones)
        begin = time.perf_counter()
        names = [{"kind": "Agent", "name": f"bench-{number}"} for number in range(MANY)]
        gone = await client.post("/v1/objects:delete", json={**OWNER, "objects": names, "allow_mass_delete": True})
        assert {each["action"] for each in gone.json()["results"]} == {"deleted"}, gone.text
        return {**found, "deleted": time.perf_counter() - begin}


def test_a_thousand_objects(bench_stack: Stack, figures: Figures) -> None:
    """In requests of a hundred, one after the other."""
    found = asyncio.run(measured(bench_stack))
    for what in ("created", "unchanged", "configured", "deleted"):
        figures.report(f"objects_{what}_1000", [found[what]], unit="s", at_most=10.0)
    figures.report("objects_one_of_1000", [found["one"] * 1000], unit="ms")
