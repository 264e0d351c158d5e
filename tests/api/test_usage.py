"""/v1/usage and /v1/budgets, and the bound on agents: what a tenant has used and may, told exactly and refused with its reason."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from api.keys import issue
from api.problem import problem
from hansa import ids
from samples import SCRIPTED, agent
from stack import Process, Stack, plain_client

WORDS = "a b c d e"
PRICED: dict[str, Any] = {
    **SCRIPTED,
    "spec": {"plugin": "scripted", "models": [{"name": "echo", "prices": {"input": 2.0, "output": 10.0}}]},
}


MODELS: dict[str, Any] = {"model": {"ref": "scripted/echo"}}


class Shop:
    """A tenant of its own, and the platform's people."""

    def __init__(self, api: httpx2.AsyncClient, client: httpx2.AsyncClient, name: str) -> None:
        self.api = api
        self.client = client
        self.name = name

    async def quotas(self, **quotas: Any) -> None:
        manifest = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": self.name}, "spec": {"quotas": quotas}}
        assert (await self.apply(manifest, by=self.api))["failed"] == 0

    async def apply(self, *manifests: dict[str, Any], by: httpx2.AsyncClient | None = None) -> Any:
        return (await (by or self.client).post("/v1/objects:apply", json={"objects": [{"manifest": each} for each in manifests]})).json()

    async def runs(self, name: str) -> httpx2.Response:
        return await self.client.post(f"/v1/agents/{name}/runs", params={"wait": 20}, json={"input": WORDS})

    async def usage(self, **query: str) -> list[dict[str, Any]]:
        answer = await self.client.get("/v1/usage", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


@pytest.fixture
async def shop(api: httpx2.AsyncClient, control_plane: Process, stack: Stack) -> AsyncIterator[Shop]:
    name = f"u-{ids.new_id().hex[-10:]}"
    async with plain_client(control_plane.url, headers=await issue(stack, name, name="k", roles=["tenant-admin"])) as client:
        found = Shop(api, client, name)
        await found.quotas()
        applied = await found.apply(PRICED, agent("one", **MODELS), agent("two", **MODELS))
        assert applied["failed"] == 0, applied
        yield found


async def test_usage_is_told_by_day_agent_and_model_and_adds_up(shop: Shop) -> None:
    for name in ("one", "two", "two"):
        assert (await shop.runs(name)).json()["state"] == "completed"
    today = datetime.now(UTC).date().isoformat()
    rows = await shop.usage()
    assert [(row["day"], row["agent"], row["model"], row["calls"]) for row in rows] == [
        (today, "one", "scripted/echo", 1),
        (today, "two", "scripted/echo", 2),
    ]
    one = rows[0]
    assert (one["output_tokens"], one["cost"]) == (5, (one["input_tokens"] * 2 + 5 * 10) / 1e6)
    (total,) = await shop.usage(by="model")
    assert (total["day"], total["agent"], total["calls"], total["output_tokens"], total["lost_calls"]) == (None, None, 3, 15, 0)
    assert total["cost"] == pytest.approx(sum(row["cost"] for row in rows))
    tomorrow = (datetime.now(UTC).date() + timedelta(days=1)).isoformat()
    assert await shop.usage(since=tomorrow, until=tomorrow) == []
    first = (await shop.client.get("/v1/usage", params={"limit": 1})).json()
    second = (await shop.client.get("/v1/usage", params={"limit": 1, "after": first["next"]})).json()
    assert ([*first["data"], *second["data"]], second["has_more"]) == (rows, False)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"since": "yesterday"}, "since='yesterday' is not a day such as 2030-01-31"),
        ({"until": "20300131"}, "until='20300131' is not a day"),
        ({"since": "2030-02-01", "until": "2030-01-31"}, "since=2030-02-01 is after until=2030-01-31"),
        ({"by": "day,week"}, "by='day,week' is not a list of day, agent, model"),
        ({"by": ""}, "is not a list of day, agent, model"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(shop: Shop, query: dict[str, str], said: str) -> None:
    assert said in problem(await shop.client.get("/v1/usage", params=query), 422, "invalid")["detail"]


async def test_limits_that_are_set_are_told_with_their_use(shop: Shop) -> None:
    assert (await shop.client.get("/v1/budgets")).json() == {"data": [], "has_more": False, "next": None}
    budget = {"amount": 1.0, "currency": "EUR", "period": "day", "warnAt": 50, "onLimit": "reject"}
    await shop.quotas(budget=budget, tokensPerDay=1_000_000, agents=2, concurrentRuns=7)
    run = (await shop.runs("one")).json()
    assert run["state"] == "completed", run
    limits = {each["limit"]: each for each in (await shop.client.get("/v1/budgets")).json()["data"]}
    (used,) = await shop.usage(by="model")
    money, tokens = limits["budget"], limits["tokensPerDay"]
    assert (money["unit"], money["bound"], money["used"], money["reserved"]) == ("EUR", 1.0, used["cost"], 0)
    assert (money["state"], money["on_limit"], money["held_runs"]) == ("ok", "reject", 0)
    assert tokens["used"] == used["input_tokens"] + used["output_tokens"]
    midnight = datetime.combine(datetime.now(UTC).date() + timedelta(days=1), datetime.min.time(), UTC)
    assert {datetime.fromisoformat(each["resets_at"]) for each in (money, tokens)} == {midnight}
    assert (limits["agents"]["used"], limits["agents"]["bound"], limits["agents"]["state"]) == (2, 2, "reached")
    assert (limits["concurrentRuns"]["bound"], limits["concurrentRuns"]["resets_at"]) == (7, None)


async def test_a_warning_comes_at_its_percent_and_not_before(shop: Shop) -> None:
    """Bifrost #5770: "99 percent used" is seen at three."""
    await shop.runs("one")
    (used,) = await shop.usage(by="model")
    for share, state in ((0.49, "ok"), (0.51, "warning"), (1.0, "reached")):
        budget = {"amount": round(used["cost"] / share, 6), "currency": "EUR", "warnAt": 50}
        await shop.quotas(budget=budget)
        assert (await shop.client.get("/v1/budgets")).json()["data"][0]["state"] == state, share


async def test_a_run_that_nothing_is_left_for_is_refused_with_the_time_to_wait(shop: Shop) -> None:
    """LiteLLM #14144: a refusal that does not say which budget."""
    await shop.runs("one")
    await shop.quotas(tokensPerDay=1)
    answer = await shop.runs("one")
    refused = problem(answer, 429, "limit_exceeded")
    assert "tokens today (quotas.tokensPerDay); the next day begins" in refused["detail"]
    assert 0 < int(answer.headers["retry-after"]) <= 86_400
    await shop.quotas()
    assert (await shop.runs("one")).status_code == 200


async def test_nothing_large_is_taken_when_there_is_no_room_for_it_and_no_run_once_it_is_full(shop: Shop) -> None:
    long = {"input": "long " * 2000}
    await shop.quotas(storageBytes=25_000)
    first = await shop.client.post("/v1/agents/one/runs", params={"wait": 20}, json=long)
    assert first.json()["state"] == "completed", first.text
    kept = (await shop.client.get("/v1/budgets")).json()["data"][0]
    assert (kept["limit"], kept["bound"], 10_000 <= kept["used"] <= 25_000) == ("storageBytes", 25_000, True)
    refused = problem(await shop.client.post("/v1/agents/one/runs", json={"input": "other " * 4000}), 413, "too_large")
    assert f"keeps {kept['used']:.0f} of 25000 bytes (quotas.storageBytes)" in refused["detail"]
    again = await shop.client.post("/v1/agents/one/runs", params={"wait": 20}, json=long)
    assert again.json()["state"] == "completed", "what is kept already takes no more room"
    await shop.quotas(storageBytes=100)
    problem(await shop.runs("one"), 413, "too_large")
    await shop.quotas()
    assert (await shop.runs("one")).status_code == 200


async def test_one_agent_too_many_is_not_applied_and_says_why(shop: Shop) -> None:
    await shop.quotas(agents=3)
    made = [agent(name, **MODELS) for name in ("three", "four")]
    applied = await shop.apply(*made, agent("one", description="changed", **MODELS))
    by_name = {each["name"]: each for each in applied["results"]}
    assert ({by_name["four"]["action"], by_name["three"]["action"]}, by_name["one"]["action"]) == ({"created", "failed"}, "configured")
    (error,) = next(each["errors"] for each in by_name.values() if each["action"] == "failed")
    assert (error["path"], error["code"]) == ("metadata.name", "quota")
    assert "has 3 agents and may have 3 (quotas.agents of the Tenant)" in error["message"]
    assert (await shop.client.delete("/v1/objects/Agent/two")).status_code == 204
    assert (await shop.apply(agent("five", **MODELS)))["failed"] == 0
