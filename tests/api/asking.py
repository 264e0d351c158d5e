"""A run that asks a person before it calls a tool."""

import asyncio
from typing import Any

import httpx2

from samples import SCRIPTED, agent

ASKING = agent("asking", tools=[{"plugin": "tools", "allow": ["clock"], "requireApproval": ["clock"]}])
CALL_CLOCK = '#script [{"tool_calls": [{"name": "clock", "arguments": {}}]}, {"text": "done"}]'


async def asking_run(api: httpx2.AsyncClient) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run, once it waits, and the approval that it waits for."""
    applied = await api.post("/v1/objects:apply", json={"objects": [{"manifest": SCRIPTED}, {"manifest": ASKING}]})
    assert applied.json()["failed"] == 0, applied.text
    run = (await api.post("/v1/agents/asking/runs", json={"input": CALL_CLOCK})).json()
    async with asyncio.timeout(10):
        while (found := (await api.get(f"/v1/runs/{run['id']}")).json())["state"] != "waiting":
            await asyncio.sleep(0.05)
    (wait,) = found["waits"]
    return found, (await api.get(f"/v1/approvals/{wait['key']}")).json()
