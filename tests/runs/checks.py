"""Agents whose revisions are checked before they serve, as tests apply and watch them."""

from typing import Any

import httpx2

from runs.engine import TOOLS, script, until
from samples import SCRIPTED, agent

SLOW = script({"text": "all is well", "delay": 1.5})
QUICK = script({"text": "all is well"})


def rollout(smoke_input: Any = QUICK, *, seconds: int = 30, allow: tuple[str, ...] = (), **expect: Any) -> dict[str, Any]:
    """What `spec.rollout` says."""
    return {"smoke": {"input": smoke_input, "expect": expect, "allow": list(allow)}, "timeoutSeconds": seconds}


async def put(client: httpx2.AsyncClient, name: str, **spec: Any) -> dict[str, Any]:
    """Apply an agent; what is answered of it."""
    manifests = [SCRIPTED, agent(name, **{"tools": TOOLS, **spec})]
    answer = await client.post("/v1/objects:apply", json={"objects": [{"manifest": each} for each in manifests]})
    assert answer.status_code == 200, answer.text
    result = answer.json()["results"][1]
    assert result["action"] != "failed", result
    return result


async def status(client: httpx2.AsyncClient, name: str) -> dict[str, Any]:
    """The agent's status, with its condition Ready beside its revisions."""
    found = (await client.get(f"/v1/agents/{name}")).json()
    other = (await client.get(f"/v1/objects/Agent/{name}")).json()
    assert found["status"].keys() == other["status"].keys() == {"observedGeneration", "conditions", "revision", "source"}
    return {**found["status"]["revision"], "ready": found["status"]["conditions"][-1]}


async def decided(client: httpx2.AsyncClient, name: str, *, seconds: float = 20.0) -> dict[str, Any]:
    """The status once the newest revision serves or is refused."""

    async def look() -> dict[str, Any] | None:
        found = await status(client, name)
        return None if found["ready"]["reason"] == "Checking" else found

    return await until(look, f"the check of {name} is over", seconds=seconds)


async def is_said(client: httpx2.AsyncClient, name: str, text: str, *, seconds: float = 10.0) -> dict[str, Any]:
    """The status once its message has a text."""

    async def look() -> dict[str, Any] | None:
        found = await status(client, name)
        return found if text in found["ready"]["message"] else None

    return await until(look, f"the status of {name} says {text!r}", seconds=seconds)


async def revisions(client: httpx2.AsyncClient, name: str) -> dict[int, dict[str, Any]]:
    """The revisions of an agent by number."""
    return {each["revision"]: each for each in (await client.get(f"/v1/agents/{name}/revisions")).json()["data"]}


async def check_of(client: httpx2.AsyncClient, name: str, revision: int) -> dict[str, Any]:
    """The run that checks, or has checked, a revision; once it is there."""

    async def look() -> dict[str, Any] | None:
        run = (await revisions(client, name))[revision]["smoke_run"]
        answer = await client.get(f"/v1/runs/{run}")
        return answer.json() if answer.status_code == 200 else None

    return await until(look, f"the check of revision {revision} of {name} has begun")
