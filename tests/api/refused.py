"""An agent whose only revision did not pass its check."""

import asyncio

import httpx2

from samples import agent


async def refused_agent(api: httpx2.AsyncClient, name: str) -> None:
    """Apply it, and wait until it is refused."""
    smoke = {"input": "hello", "expect": {"contains": ["what no echo says"]}}
    answer = await api.post("/v1/objects:apply", json={"objects": [{"manifest": agent(name, rollout={"smoke": smoke})}]})
    assert answer.json()["failed"] == 0, answer.text
    async with asyncio.timeout(20):
        while (await api.get(f"/v1/agents/{name}")).json()["status"]["conditions"][-1]["reason"] != "Refused":
            await asyncio.sleep(0.05)
