"""A control plane that is killed in the middle of a request has done all of it or nothing, and the request may be sent again."""

import asyncio

import httpx2
import pytest

from audit.trails import end, trail
from ownership.asking import actions, git
from samples import agent
from stack import Stack


@pytest.mark.parametrize("verb", ["apply", "delete"])
async def test_a_request_that_was_cut_off_is_done_once_when_it_is_sent_again(
    api: httpx2.AsyncClient, stack: Stack, name: str, verb: str
) -> None:
    names = [f"{name}-{number}" for number in range(300)]
    objects = {**git(name), "objects": [{"manifest": agent(each)} for each in names]}
    doomed = {**git(name), "objects": [{"kind": "Agent", "name": each} for each in names], "allow_mass_delete": True}
    if verb == "delete":
        assert (await api.post("/v1/objects:apply", json=objects)).json()["failed"] == 0
    body, last = objects if verb == "apply" else doomed, await end(stack)
    victim = stack.serve()
    async with stack.client(victim) as client:
        sent = asyncio.create_task(client.post(f"/v1/objects:{verb}", json=body, headers={"idempotency-key": name}))
        await asyncio.sleep(0.15)
        victim.kill()
        (cut,) = await asyncio.gather(sent, return_exceptions=True)
    done = [each["target"] for each in await trail(stack, after=last)]
    assert len(done) in (0, 300), "done in parts"
    async with asyncio.timeout(20):
        while (again := await api.post(f"/v1/objects:{verb}", json=body, headers={"idempotency-key": name})).status_code == 409:
            await asyncio.sleep(0.2)  # the database has not noticed yet
    assert set(actions(again.json()["results"])) == {"created" if verb == "apply" else "deleted"}, cut
    assert sorted(each["target"] for each in await trail(stack, after=last)) == sorted(f"Agent/{each}" for each in names)
    left = (await api.get("/v1/objects", params={"origin": git(name)["origin"], "limit": 200})).json()["data"]
    assert len(left) == (200 if verb == "apply" else 0)
