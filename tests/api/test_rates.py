"""A tenant's requests a second: never more than its bound over all control planes, refused with the time to wait, no burden to others."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg
import httpx2
import pytest

from api.keys import bearer, issue
from api.problem import problem
from hansa import ids
from stack import Process, Stack, plain_client

Bounded = Callable[[int], Awaitable[dict[str, str]]]


@pytest.fixture
async def bounded(api: httpx2.AsyncClient, stack: Stack) -> Bounded:
    """Makes a tenant that may make so many requests a second; the header with a key of it."""

    async def make(per_second: int) -> dict[str, str]:
        name = f"r-{ids.new_id().hex[-10:]}"
        manifest = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}}
        spec = {"quotas": {"requestsPerSecond": per_second}}
        applied = await api.post("/v1/objects:apply", json={"objects": [{"manifest": {**manifest, "spec": spec}}]})
        assert applied.json()["failed"] == 0, applied.text
        return await issue(stack, name, name="k", roles=["viewer"])

    return make


@pytest.fixture(scope="module")
def replica(stack: Stack) -> Process:
    return stack.serve()


@pytest.fixture
async def both(api: httpx2.AsyncClient, replica: Process) -> AsyncIterator[list[httpx2.AsyncClient]]:
    """Clients of two control planes, without a key."""
    async with AsyncExitStack() as stack:
        urls = (str(api.base_url), replica.url)
        yield [await stack.enter_async_context(plain_client(url)) for url in urls]


async def hammer(clients: list[httpx2.AsyncClient], key: dict[str, str], *, at_once: int, seconds: float) -> tuple[int, int, float]:
    """Ask as often as one can: (admitted, refused, seconds it took)."""
    begun, count = time.monotonic(), {200: 0, 429: 0}

    async def one(client: httpx2.AsyncClient) -> None:
        while time.monotonic() - begun < seconds:
            answer = await client.get("/v1/whoami", headers=key)
            count[answer.status_code] += 1
            if answer.status_code == 429:
                await asyncio.sleep(0.01)

    await asyncio.gather(*(one(client) for client in clients for _ in range(at_once)))
    return count[200], count[429], time.monotonic() - begun


@pytest.mark.parametrize("bound", [3, 40, 100])
async def test_two_control_planes_admit_the_bound_and_no_more(both: list[httpx2.AsyncClient], bounded: Bounded, bound: int) -> None:
    key = await bounded(bound)
    admitted, refused, took = await hammer(both, key, at_once=8, seconds=3.0)
    assert admitted <= bound * (1 + took) + 1e-3, "one second's worth at once, and then the bound in each second"
    assert admitted >= 0.6 * bound * took or not refused
    assert refused > 0 or bound > 40, "a slow machine asks no more often"


async def test_a_control_plane_that_is_killed_takes_what_it_counted_ahead_with_it(
    api: httpx2.AsyncClient, stack: Stack, bounded: Bounded
) -> None:
    bound, victim, key = 100, stack.serve(), await bounded(100)
    async with plain_client(str(api.base_url)) as lasting, plain_client(victim.url) as dying:
        begun, kill = time.monotonic(), asyncio.get_running_loop().call_later(0.7, victim.kill)
        both = (hammer([lasting], key, at_once=8, seconds=2.0), hammer([dying], key, at_once=8, seconds=2.0))
        goes_on, lost = await asyncio.gather(*both, return_exceptions=True)
        took = time.monotonic() - begun
        kill.cancel()
    assert isinstance(lost, httpx2.TransportError)
    assert isinstance(goes_on, tuple)
    assert 0 < goes_on[0] <= bound * (1 + took)


async def test_the_count_finds_one_that_forgets(both: list[httpx2.AsyncClient], bounded: Bounded, stack: Stack) -> None:
    key = await bounded(10)
    connection = await asyncpg.connect(stack.admin_url)

    async def forget() -> None:
        while True:
            await connection.execute("DELETE FROM hansa.request_rates")
            await asyncio.sleep(0.05)

    forgetting = asyncio.create_task(forget())
    try:
        admitted, _, took = await hammer(both, key, at_once=8, seconds=1.5)
    finally:
        forgetting.cancel()
        await asyncio.wait({forgetting})
        await connection.close()
    assert admitted > 10 * (1 + took)


async def test_a_refusal_names_the_bound_and_the_time_to_wait(both: list[httpx2.AsyncClient], bounded: Bounded) -> None:
    key = await bounded(1)
    client = both[0]
    answers = [await client.get("/v1/agents", headers=key) for _ in range(3)]
    assert answers[0].status_code == 200
    refused = problem(answers[1], 429, "limit_exceeded")
    assert "may make 1 requests a second (quotas.requestsPerSecond)" in refused["detail"]
    assert refused["retryable"]
    await asyncio.sleep(int(answers[2].headers["retry-after"]))
    assert (await client.get("/v1/agents", headers=key)).status_code == 200


async def test_others_are_not_held_up(both: list[httpx2.AsyncClient], bounded: Bounded) -> None:
    flooding, quiet = await bounded(2), await bounded(1000)
    task = asyncio.create_task(hammer(both, flooding, at_once=8, seconds=2.0))
    answers = [(await both[0].get("/v1/whoami", headers=quiet)).status_code for _ in range(50)]
    await task
    assert answers == [200] * 50


async def test_a_bound_that_is_lifted_counts_no_more(api: httpx2.AsyncClient, both: list[httpx2.AsyncClient], bounded: Bounded) -> None:
    key = await bounded(1)
    name = (await both[0].get("/v1/whoami", headers=key)).json()["tenant"]
    manifest = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}}
    assert (await api.post("/v1/objects:apply", json={"objects": [{"manifest": manifest}]})).json()["failed"] == 0
    answers = [(await both[0].get("/v1/whoami", headers=key)).status_code for _ in range(20)]
    assert answers == [200] * 20
    assert (await api.get(f"/v1/tenants/{name}")).json()["requests_per_second"] is None


async def test_a_wrong_key_costs_its_tenant_nothing(both: list[httpx2.AsyncClient], bounded: Bounded) -> None:
    key = await bounded(1)
    text = key["authorization"].removeprefix("Bearer ")
    typo = bearer(text[:-1] + ("A" if text[-1] != "A" else "B"))
    assert [(await both[0].get("/v1/whoami", headers=typo)).status_code for _ in range(20)] == [401] * 20
    assert (await both[0].get("/v1/whoami", headers=key)).status_code == 200
