"""Budgets: never over, never blocked by a ghost; what stands still goes on by itself."""

import httpx2
import pytest

from api.problem import problem
from runs.engine import Engine
from runs.spending import Spender, calls, open_spender, violations, words
from stack import Process

MILLION = 1_000_000


@pytest.fixture
async def spender(engine: Engine, client: httpx2.AsyncClient, steady: Process) -> Spender:
    assert steady.alive
    return await open_spender(engine, client)


async def test_what_is_spent_is_what_was_answered(spender: Spender) -> None:
    await spender.budget(5000)
    run = await spender.spends(calls(words(7)))
    assert run["state"] == "completed", run
    facts = await spender.facts()
    assert (facts["spent"], facts["calls"], facts["lost_calls"]) == (7 * MILLION, 1, 0)
    assert violations(facts, 7 * MILLION) == []


async def test_a_run_fails_once_nothing_is_left_and_says_so(spender: Spender) -> None:
    await spender.budget(70, onLimit="reject")
    assert (await spender.spends(calls(words(60))))["state"] == "completed"
    run = await spender.spends(calls(words(60)))
    assert (run["state"], run["error"]["code"]) == ("failed", "limit_budget"), run
    assert "the tenant's budget is 70 EUR a month (quotas.budget): 60 is spent and 0 reserved" in run["error"]["detail"]
    assert violations(await spender.facts(), 60 * MILLION) == []
    await spender.budget(60, onLimit="reject")
    refused = problem(await spender.asks("POST", "/v1/agents/spender/runs", json={"input": "x"}), 429, "limit_exceeded")
    assert "the tenant has spent its budget: 60 of 60 EUR this month (quotas.budget)" in refused["detail"]


async def test_a_run_is_held_until_the_budget_is_raised(spender: Spender) -> None:
    await spender.budget(30)
    run_id = await spender.start(calls(words(50)))
    held = await spender.ended(run_id, states=frozenset({"suspended"}))
    assert (held["suspended_by"], held["waits"][0]["kind"]) == ("budget", "budget")
    assert (await spender.limits())["budget"]["held_runs"] == 1
    await spender.budget(5000)
    run = await spender.ended(run_id)
    assert (run["state"], run["output"]) == ("completed", " ".join(["word"] * 50))
    assert violations(await spender.facts(), 50 * MILLION) == []
