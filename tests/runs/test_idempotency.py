"""A control plane killed around a POST: the same key at another replica gives the same run, and there is only that one."""

import asyncio
import random
from typing import Any

import httpx2
import pytest

from runs.engine import Engine, apply_agent, until

KILLS = 2
POSTS = 30


async def duplicates(engine: Engine, inputs: list[str]) -> list[str]:
    """Inputs for which there is not exactly one run."""
    rows = await engine.fetch(
        "SELECT input #>> '{}' AS said, count(*) AS runs FROM hansa.runs WHERE input #>> '{}' = ANY($1) GROUP BY 1", inputs
    )
    counts = {row["said"]: row["runs"] for row in rows}
    return [each for each in inputs if counts.get(each) != 1]


async def post(client: httpx2.AsyncClient, said: str, *, keyed: bool) -> dict[str, Any] | None:
    """The run, or None when no answer came or none that counts."""
    headers = {"idempotency-key": f"key of {said}"} if keyed else {}
    try:
        answer = await client.post("/v1/agents/once/runs", json={"input": said}, headers=headers)
    except httpx2.TransportError:
        return None
    assert answer.status_code in (202, 409, 503), answer.text
    return answer.json() if answer.status_code == 202 else None


async def kill_within(engine: Engine, tag: str) -> tuple[list[str], dict[str, str]]:
    """Kill a replica among POSTs to it: what was sent, and the ids that were answered before that."""
    replica = engine.replica()
    inputs, heard = [f"{tag} {number}" for number in range(POSTS)], dict[str, str]()
    async with engine.client(replica) as doomed:
        await doomed.get("/v1/runs")

        async def send(said: str) -> None:
            await asyncio.sleep(random.random() * 0.3)
            run = await post(doomed, said, keyed=True)
            if run is not None:
                heard[said] = run["id"]
                if len(heard) == POSTS // 3:
                    replica.kill()

        await asyncio.gather(*(send(said) for said in inputs))
    return inputs, heard


@pytest.mark.timeout(90)
async def test_a_retry_with_the_key_gives_the_first_run(engine: Engine, client: httpx2.AsyncClient) -> None:
    await apply_agent(client, "once")
    for kill in range(KILLS):
        inputs, heard = await kill_within(engine, f"keyed {kill}")
        for said in inputs:
            run = await until(lambda said=said: post(client, said, keyed=True), "the retry is answered")
            assert heard.get(said, run["id"]) == run["id"]
        assert await duplicates(engine, inputs) == []
        assert POSTS // 3 <= len(heard) < POSTS, "the kill came after everything was over, or never"


async def test_without_a_key_the_oracle_sees_the_doubled_runs(engine: Engine, client: httpx2.AsyncClient) -> None:
    await apply_agent(client, "once")
    inputs = [f"keyless {number}" for number in range(5)]
    for said in inputs:
        assert await post(client, said, keyed=False), "the answer, which the caller of this test does not hear"
        await post(client, said, keyed=False)
    assert await duplicates(engine, inputs) == inputs


async def test_one_key_sent_many_times_at_once_makes_one_run(engine: Engine, client: httpx2.AsyncClient) -> None:
    await apply_agent(client, "once")
    answers = await asyncio.gather(*(post(client, "at once", keyed=True) for _ in range(20)))
    assert len({run["id"] for run in answers if run}) == 1
    assert await duplicates(engine, ["at once"]) == []
    answer = await client.post("/v1/agents/once/runs", json={"input": "another"}, headers={"idempotency-key": "key of at once"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
