"""Sixty-four spend from one budget at the same time, and their workers are killed: it is never exceeded, and nothing stays reserved.

The oracle has the provider's own bill: a server that counts every request it was asked to answer, whoever lived to hear the answer.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from doubles.llm_upstream import LLMUpstream, Scenario
from runs.engine import ENDED, Engine, until
from runs.spending import PRICES, Spender, open_spender, provider, violations
from samples import agent
from stack import Process

Workers = Callable[..., Process]
SPENDERS, RUNS, WORDS, MOST = 64, 3, 20, 25
MILLION = 1_000_000
TEXT = " ".join(["word"] * WORDS)


@pytest.fixture
def upstream() -> Iterator[LLMUpstream]:
    with LLMUpstream() as found:
        yield found.then(*[Scenario(text=TEXT, delay=0.4)] * (SPENDERS * RUNS * 4))


def admitted(upstream: LLMUpstream) -> dict[str, str]:
    """The environment of a worker that may ask that server, and much at once."""
    return {"HANSA_EGRESS_ALLOW": upstream.url.removeprefix("http://"), "HANSA_WORKER_CONCURRENCY": "32"}


async def spend(engine: Engine, client: httpx2.AsyncClient, upstream: LLMUpstream, amount: int) -> Spender:
    """A tenant whose agent asks a model on that server once a run, for an answer that costs WORDS, and never more than MOST."""
    spender = await open_spender(engine, client)
    model = {"name": "any", "aliases": ["priced"], "prices": PRICES}
    await spender.apply(
        provider("upstream", plugin="openai", endpoint=f"{upstream.url}/v1", models=[model]),
        agent("buyer", model={"alias": "priced", "params": {"maxTokens": MOST}}),
    )
    await spender.budget(amount, onLimit="reject")
    return spender


@asynccontextmanager
async def spenders(spender: Spender) -> AsyncIterator[None]:
    """Within it they spend, one run after the other each, and at its end all of their runs have ended."""

    async def one() -> None:
        for _ in range(RUNS):
            answer = await spender.asks("POST", "/v1/agents/buyer/runs", json={"input": "buy"})
            if answer.status_code == 202:
                await spender.ended(answer.json()["id"], seconds=60)

    tasks = [asyncio.create_task(one()) for _ in range(SPENDERS)]
    yield
    await asyncio.gather(*tasks)


@pytest.mark.timeout(120)
async def test_a_budget_holds_while_its_spenders_are_killed(
    engine: Engine, client: httpx2.AsyncClient, worker: Workers, upstream: LLMUpstream
) -> None:
    amount = 2000
    spender = await spend(engine, client, upstream, amount)
    env = admitted(upstream)
    living = [worker(**env) for _ in range(2)]
    async with spenders(spender):
        for round_ in range(4):
            await until(lambda round_=round_: len(upstream.requests) >= 12 * (round_ + 1), "they spend", seconds=30)
            living.pop(0).kill()
            living.append(worker(**env))
    facts, bill = await spender.facts(), len(upstream.requests) * WORDS * MILLION
    assert violations(facts, bill) == []
    assert facts["lost_calls"] > 0, "no call was lost: the kills fell beside the work"
    assert facts["amount"] - facts["spent"] < MOST * MILLION, "something is left that nobody was given"
    states = await engine.fetch("SELECT DISTINCT state FROM hansa.runs WHERE tenant_id = $1", spender.id)
    assert {row["state"] for row in states} <= ENDED


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("function", "sound", "broken", "seen"),
    [
        ("budget_reserve", "v_cost > v_room THEN 'budget'", "v_cost > v_room + 1000 * v_cost THEN 'budget'", "over: "),
        ("usage_settle", "reserved = b.reserved - v_held", "reserved = b.reserved - v_held / 2", "ghost: "),
        ("usage_settle", "spent = b.spent + v_cost", "spent = b.spent + v_cost / 2", "not counted: "),
    ],
)
async def test_the_oracle_sees_what_is_broken(  # each a budget that does not hold
    engine: Engine, client: httpx2.AsyncClient, worker: Workers, upstream: LLMUpstream, function: str, sound: str, broken: str, seen: str
) -> None:
    spender = await spend(engine, client, upstream, 400 if seen == "over: " else 4000)
    connection = await engine.admin()
    try:
        whole = await connection.fetchval("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = $1", function)
        assert whole.count(sound) == 1
        await connection.execute(whole.replace(sound, broken))
        try:
            worker(**admitted(upstream))
            runs = await asyncio.gather(*(spender.start("buy", agent_name="buyer") for _ in range(24)))
            await asyncio.gather(*(spender.ended(run, seconds=60) for run in runs))
        finally:
            await connection.execute(whole)
    finally:
        await connection.close()
    found = violations(await spender.facts(), len(upstream.requests) * WORDS * MILLION)
    assert any(told.startswith(seen) for told in found), found
