"""Budgets of whole runs: never over, never blocked by a ghost; what stands still goes on by itself.

Tests name the reports that they answer: LiteLLM is github.com/BerriAI/litellm, Bifrost is github.com/maximhq/bifrost.
"""

import asyncio

import httpx2
import msgspec
import pytest

from api.problem import problem
from hansa.llm.metering import Target, most_input_tokens
from hansa.runs.budget.metering import StepMeter
from hansa.runs.journal import Fenced
from hansa.runs.model import Ask, Grant
from hansa_crds import ModelProvider
from hansa_sdk import LLMRequest, LLMResponse, Message, Role, StopReason, Usage
from runs.engine import Engine, until
from runs.spending import Spender, calls, open_spender, provider, violations, words
from samples import agent
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


async def test_a_held_run_goes_on_when_the_next_period_begins(spender: Spender, engine: Engine) -> None:
    """LiteLLM #5651, #39726: a period is over, and who was blocked stays blocked."""
    await spender.budget(70, period="day")
    assert (await spender.spends(calls(words(60))))["state"] == "completed"
    run_id = await spender.start(calls(words(60)))
    await spender.ended(run_id, states=frozenset({"suspended"}))
    connection = await engine.admin()
    try:  # a day goes by
        await connection.execute("UPDATE hansa.budgets SET begun = begun - 1, day = day - 1 WHERE tenant_id = $1", spender.id)
        await connection.execute("UPDATE hansa.usage SET day = day - 1 WHERE tenant_id = $1", spender.id)
        await connection.execute("UPDATE hansa.waits SET look_at = now() WHERE tenant_id = $1 AND kind = 'budget'", spender.id)
    finally:
        await connection.close()
    run = await spender.ended(run_id)
    assert (run["state"], (await spender.facts())["spent"]) == ("completed", 60 * MILLION)
    events = await engine.fetch("SELECT type, data FROM hansa.events WHERE session_id = $1::uuid ORDER BY seq", run["session_id"])
    told = {event["type"]: event["data"] for event in events}
    assert (told["run.suspended"]["by"], told["run.suspended"]["limit"], told["run.continued"]["by"]) == ("budget", "budget", "budget")


async def test_a_model_that_costs_nothing_stands_in_once_the_money_is_spent(spender: Spender) -> None:
    """LiteLLM #10973: a budget that is used up blocks models that cost nothing."""
    await spender.apply(
        provider("free", alias="free", prices={}),
        agent("thrifty", model={"alias": "scripted", "fallbacks": [{"alias": "free"}]}),
    )
    await spender.budget(10, onLimit="reject")
    run = await spender.ended(await spender.start(calls(words(20)), agent_name="thrifty"))
    assert (run["state"], run["output"]) == ("completed", " ".join(["word"] * 20))
    facts = await spender.facts()
    assert (facts["spent"], facts["tokens"] > 20) == (0, True)


async def test_what_called_agents_spend_is_their_tenants(spender: Spender) -> None:
    """LiteLLM #10750, #13882, Bifrost #2873: a way round the budget."""
    await spender.apply(agent("caller", tools=[{"agent": "spender"}]))
    await spender.budget(5000)
    call = {"tool_calls": [{"name": "spender", "arguments": {"input": calls(words(3))}}]}
    run = await spender.ended(await spender.start(calls(call, words(2)), agent_name="caller"))
    assert run["state"] == "completed", run
    rows = (await spender.asks("GET", "/v1/usage", params={"by": "agent"})).json()["data"]
    assert {row["agent"]: row["calls"] for row in rows} == {"caller": 2, "spender": 1}
    facts = await spender.facts()
    assert (facts["spent"], violations(facts, facts["used"])) == (sum(row["output_tokens"] for row in rows) * MILLION, [])


async def test_what_stands_in_the_log_is_paid_once(spender: Spender) -> None:
    """LiteLLM #1783: an answer that was had before is counted again."""
    await spender.budget(5000)
    run = await spender.spends(calls(words(3)))
    assert (await spender.asks("GET", f"/v1/runs/{run['id']}/replay")).json()["equal"]
    events = (await spender.asks("GET", f"/v1/sessions/{run['session_id']}/events")).json()["data"]
    answered = next(event["seq"] for event in events if event["type"] == "model.completed")
    forked = await spender.asks("POST", f"/v1/runs/{run['id']}/fork", json={"at": answered})
    assert (await spender.ended(forked.json()["id"]))["state"] == "completed"
    facts = await spender.facts()
    assert (facts["spent"], facts["calls"]) == (3 * MILLION, 1)


async def test_a_call_that_was_refused_or_failed_costs_nothing(spender: Spender) -> None:
    """LiteLLM #36926, #40050: what is enforced is more than what was spent."""
    await spender.budget(5000)
    run = await spender.spends(calls({"error": "unavailable", "times": 1}, words(4)))
    assert run["state"] == "completed", run
    assert (await spender.spends(calls({"error": "refused"})))["state"] == "failed"
    facts = await spender.facts()
    assert (facts["spent"], facts["calls"], facts["lost_calls"]) == (4 * MILLION, 1, 0)
    assert violations(facts, 4 * MILLION) == []


@pytest.mark.parametrize(("lost", "spent"), [("charge", 80), ("release", 0)])
async def test_a_call_that_is_canceled_in_its_middle_counts_the_most_it_can_have_cost(spender: Spender, lost: str, spent: int) -> None:
    """Bifrost #3357: what a provider did until a call was canceled is on its bill. LiteLLM pull request 30522: and nothing stays held."""
    await spender.apply(agent("slow", model={"alias": "scripted", "params": {"maxTokens": 80}}))
    await spender.budget(100, lostCalls=lost)
    run_id = await spender.start(calls({**words(5), "delay": 30}), agent_name="slow")

    async def asked() -> bool:
        return (await spender.facts())["reserved"] == 80 * MILLION

    await until(asked, "the model is asked")
    assert (await spender.asks("POST", f"/v1/runs/{run_id}/cancel")).status_code == 202
    assert (await spender.ended(run_id))["state"] == "canceled"
    facts = await spender.facts()
    assert (facts["spent"], facts["lost_calls"], violations(facts, 0)) == (spent * MILLION, 1, [])


async def test_a_budget_that_is_set_while_a_run_is_under_way_holds_from_its_next_step_on(spender: Spender) -> None:
    run_id = await spender.start(calls({**words(5), "delay": 2}, words(1)))

    async def running() -> bool:
        return (await spender.run(run_id))["state"] == "running"

    await until(running, "it runs")
    await asyncio.sleep(0.7)  # its first call, of two seconds, is under way
    await spender.budget(4, onLimit="reject")
    run = await spender.ended(run_id)
    assert run["state"] in ("completed", "failed")
    refused = await spender.asks("POST", "/v1/agents/spender/runs", json={"input": "x"})
    assert refused.status_code == 429, "what the run spent before counts"


SAID = LLMResponse("Hello.", StopReason.END, "echo")


@pytest.mark.parametrize(
    ("response", "most_input", "output"),
    [
        (SAID, True, 10),
        (msgspec.structs.replace(SAID, usage=Usage(3, 0)), False, 10),
        (msgspec.structs.replace(SAID, usage=Usage(0, 4)), True, 4),
        (msgspec.structs.replace(SAID, text="", usage=Usage(3, 0)), False, 0),
        (msgspec.structs.replace(SAID, usage=Usage(3, 4)), False, 4),
    ],
    ids=["nothing", "what was read", "what was written", "an empty answer", "all"],
)
def test_what_a_provider_does_not_tell_is_counted_at_the_most(response: LLMResponse, *, most_input: bool, output: int) -> None:
    """LiteLLM #37923, #13264: streamed answers cost nothing, since nobody says what they cost."""

    class Book:
        metered = True

        async def reserve(self, ask: Ask) -> Grant:
            return Grant("granted", ask.output_tokens)

    meter = StepMeter(Book(), "a", "1")
    target = Target(msgspec.convert(provider(prices={"output": 1.0}), ModelProvider), "echo")
    asyncio.run(meter.begin(target, LLMRequest((Message(Role.USER, "hi"),), max_tokens=10)))
    assert meter.answered(response) == output
    assert (meter.spends[0].output_tokens, meter.spends[0].input_tokens > 3) == (output, most_input)


async def test_who_cannot_reserve_does_not_ask() -> None:
    """LiteLLM #33923, #26672: a reservation that can't be written lets the call pass."""

    class Shut:
        metered = True

        async def reserve(self, ask: Ask) -> Grant:
            raise Fenced(ask.step)

    target = Target(msgspec.convert(provider(), ModelProvider), "echo")
    with pytest.raises(Fenced):
        await StepMeter(Shut(), "a", "1").begin(target, LLMRequest((Message(Role.USER, "hi"),)))


def test_no_text_has_more_tokens_than_are_reserved_for_it() -> None:
    """LiteLLM pull request 40002: a reservation that is smaller than the call."""
    for text in ("", "hello", "\N{SNOWMAN}" * 100, '\n\t"' * 50):
        request = LLMRequest((Message(Role.SYSTEM, text), Message(Role.USER, text)))
        assert most_input_tokens(request) >= 2 * len(text.encode()) + 2 * 4
