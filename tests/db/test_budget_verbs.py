"""Budgets in SQL, one scenario after the other that others have had to learn: each test names the reports it answers.

LiteLLM is github.com/BerriAI/litellm, Bifrost is github.com/maximhq/bifrost.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, time, timedelta

import asyncpg
import pytest
import pytest_asyncio

from db.purse import Purse
from db.scratch import Scratch, open_scratch
from db.verbs import Held, connections, new_tenant
from stack import Stack

SPENDERS = 64


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scratch(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scratch]:
    """One database for all tests here: each has a tenant of its own."""
    async with open_scratch(stack, tmp_path_factory.mktemp("budgets")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def purse(scratch: Scratch) -> AsyncIterator[Purse]:
    async with connections(scratch) as (app, system):
        yield Purse(scratch, await new_tenant(scratch, app, system))


async def test_sixty_four_spenders_at_once_are_never_given_more_than_there_is(scratch: Scratch, purse: Purse) -> None:
    """LiteLLM #34732, #26672, #40095: requests that come at once all see what is left, and all pass. Bifrost #3547: so do replicas."""
    await purse.sets(200)
    runs = await purse.runs(SPENDERS)
    lines = [await asyncpg.connect(scratch.settings.database.app_url) for _ in range(8)]
    try:
        desks = [Purse(scratch, purse.tenant.at(line, line)) for line in lines]

        async def spend(desk: Purse, own: list[Held]) -> list[str]:
            return [(await purse.asks(held, at=desk))["outcome"] for held in own]

        said = await asyncio.gather(*(spend(desk, runs[n::8]) for n, desk in enumerate(desks)))
    finally:
        for line in lines:
            await line.close()
    assert sorted(each for own in said for each in own) == ["granted"] * 20 + ["refused"] * (SPENDERS - 20)
    found = await purse.has()
    assert (found["reserved"], found["spent"], found["reservations"]) == (200, 0, 20)


async def test_what_is_not_reserved_is_seen_by_that_test(purse: Purse, scratch: Scratch) -> None:
    """The broken control: a check of what is spent, without reserving."""
    whole = await scratch.owner.fetchval("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = 'budget_reserve'")
    await scratch.execute(whole.replace("reserved = b.reserved + v_cost", "reserved = b.reserved + 0 * v_cost"))
    try:
        await purse.sets(200)
        said = [(await purse.asks(held))["outcome"] for held in await purse.runs(SPENDERS)]
        assert said.count("granted") > 20
    finally:
        await scratch.execute(whole)


async def test_a_call_settles_to_what_it_cost_and_gives_the_rest_back(purse: Purse) -> None:
    """LiteLLM #27735, #40050, #36926: what is enforced is not what was spent."""
    await purse.sets(100)
    (run,) = await purse.runs(1)
    assert (await purse.asks(run, 90))["outcome"] == "granted"
    assert [row["metered"] for row in await purse.writes(run, 7)] == [True]
    found = await purse.has()
    assert (found["spent"], found["used"], found["reserved"], found["reservations"], found["calls"]) == (7, 7, 0, 0, 1)
    assert (await purse.asks(run, 93))["outcome"] == "granted"
    assert (await purse.asks(run, 94))["outcome"] == "refused", "one more than is left"


async def test_a_write_that_comes_twice_is_counted_once(purse: Purse) -> None:
    """LiteLLM #35569: a settlement that is tried again counts twice."""
    await purse.sets(100)
    (run,) = await purse.runs(1)
    await purse.asks(run)
    await purse.writes(run, 7)
    run.writes -= 1
    assert await purse.writes(run, 7) != [], "its answer was lost, so it is sent again"
    found = await purse.has()
    assert (found["spent"], found["calls"], found["reserved"]) == (7, 1, 0)


@pytest.mark.parametrize(("charges", "spent"), [(True, 10), (False, 0)])
async def test_nothing_stays_reserved_when_a_run_is_taken_over(purse: Purse, scratch: Scratch, *, charges: bool, spent: int) -> None:
    """LiteLLM #27639: reservations of requests that ended otherwise are never given back. Bifrost #3357: and nobody counts their cost."""
    await purse.sets(100, charges_lost=charges)
    (lost,) = await purse.runs(1)
    await purse.asks(lost)
    await scratch.execute("UPDATE hansa.runs SET lease_until = now() - interval '1 s' WHERE tenant_id = $1", purse.tenant.id)
    (taken,) = await purse.tenant.claim(1)
    await purse.tenant.app("SELECT count(*) FROM hansa.run_load($1, $2, $3)", [taken.run], [taken.epoch])
    found = await purse.has()
    assert (found["reserved"], found["spent"], found["used"], found["lost"]) == (0, spent, spent, 1)
    assert await purse.writes(lost, 5) == [], "who was thought dead is fenced"
    assert (await purse.asks(lost))["outcome"] == "fenced"
    await purse.asks(taken)
    await purse.writes(taken, 5, state="completed")
    found = await purse.has()
    assert (found["reserved"], found["spent"], found["used"]) == (0, spent + 5, spent + 5)


@pytest.mark.parametrize("charges", [True, False])
async def test_a_dead_spender_does_not_stand_in_the_way(purse: Purse, scratch: Scratch, *, charges: bool) -> None:
    """LiteLLM #27639, #36926: refused for what nobody spends. Here nobody takes the dead one's run over, and yet what it held is free."""
    await purse.sets(19, charges_lost=charges)
    dead, alive = await purse.runs(2)
    assert (await purse.asks(dead))["outcome"] == "granted"
    assert (await purse.asks(alive, last=False))["outcome"] == "wait", "others may give back what they hold"
    await scratch.execute("UPDATE hansa.runs SET lease_until = now() - interval '1 s' WHERE id = $1", dead.run)
    said = await purse.asks(alive)
    assert said["outcome"] == ("refused" if charges else "granted"), "a lost call is paid for, or it is not"
    found = await purse.has()
    assert (found["reserved"], found["spent"]) == ((0, 10) if charges else (10, 0))
    assert await purse.writes(dead, 10) == [], "it may live, and must not spend what others were given"


@pytest.mark.parametrize("state", ["completed", "failed", "canceled", "waiting", "needs_review"])
async def test_nothing_stays_reserved_when_a_run_is_let_go(purse: Purse, state: str) -> None:
    """LiteLLM pull request 30522: a request that is canceled in mid-flight keeps its reservation."""
    await purse.sets(100)
    (run,) = await purse.runs(1)
    await purse.asks(run)
    await purse.writes(run, state=state, waits=[json.dumps({"step": "w", "kind": "timer", "seconds": 1e6})] if state == "waiting" else [])
    found = await purse.has()
    assert (found["reserved"], found["reservations"], found["spent"], found["lost"]) == (0, 0, 10, 1)


async def test_nothing_stays_reserved_when_a_run_is_held(purse: Purse) -> None:
    await purse.sets(100)
    (run,) = await purse.runs(1)
    await purse.asks(run)
    await purse.tenant.of_run("suspend", run.run)
    assert await purse.tenant.of_run("hold", run.run, run.epoch)
    found = await purse.has()
    assert (found["reserved"], found["reservations"], found["spent"]) == (0, 0, 10)


async def test_a_further_attempt_of_a_step_has_one_reservation_with_what_the_first_may_have_cost(purse: Purse) -> None:
    """LiteLLM pull request 40002: a reservation at another price than the model's that is asked."""
    await purse.sets(100)
    (run,) = await purse.runs(1)
    await purse.asks(run, 10)
    assert (await purse.asks(run, 30, output_price=2.0, lost_cost=10, lost_tokens=10))["outcome"] == "granted"
    found = await purse.has()
    assert (found["reserved"], found["reservations"]) == (70, 1)
    await purse.writes(run, 8, spend={"lost_calls": 1, "lost_tokens": 10, "lost_cost": 10})
    found = await purse.has()
    assert (found["spent"], found["used"], found["reserved"]) == (18, 18, 0)


async def test_an_answer_is_cut_to_what_is_left_but_not_below_what_is_of_use(purse: Purse) -> None:
    await purse.sets(100)
    (run,) = await purse.runs(1)
    said = await purse.asks(run, 400, least=64)
    assert (said["outcome"], said["output_tokens"]) == ("granted", 100)
    await purse.writes(run, 50)
    said = await purse.asks(run, 400, least=64)
    assert (said["outcome"], said["told"]["used"], said["told"]["bound"], said["told"]["needed"]) == ("refused", 50, 100, 400)
    said = await purse.asks(run, 400, least=64, input_tokens=10, input_price=3.0, output_price=0.3)
    assert (said["outcome"], said["output_tokens"]) == ("granted", 66), "30 for the question, 0.3 for each token of the answer"


async def test_prices_below_a_millionth_are_counted_and_never_round_a_budget_up(purse: Purse) -> None:
    await purse.sets(1)
    (run,) = await purse.runs(1)
    said = await purse.asks(run, 1000, least=1, output_price=0.0014)
    assert (said["outcome"], said["output_tokens"], (await purse.has())["reserved"]) == ("granted", 714, 1)


async def test_a_model_without_a_price_is_asked_when_nothing_is_left(purse: Purse) -> None:
    """LiteLLM #10973: a budget that is used up blocks models that cost nothing."""
    (run,) = await purse.runs(1)
    await purse.sets(0)
    assert (await purse.asks(run))["outcome"] == "refused"
    assert (await purse.asks(run, output_price=0.0))["outcome"] == "granted"
    await purse.writes(run, 0, spend={"output_tokens": 10})
    assert (await purse.has())["tokens"] == 10


async def test_who_has_no_budget_is_never_blocked(purse: Purse, scratch: Scratch) -> None:
    """LiteLLM #20615, #22726: refused without a budget."""
    (run,) = await purse.runs(1)
    assert (await purse.asks(run, 10**9))["outcome"] == "granted"
    assert [row["metered"] for row in await purse.writes(run, 7)] == [False]
    await purse.sets(5)
    await purse.sets(None)
    assert (await purse.asks(run, 10**9))["outcome"] == "granted"
    assert await purse.tenant.start("a") == "accepted"
    assert (await purse.has())["reservations"] == 0


async def test_what_was_spent_before_there_was_a_budget_counts(purse: Purse) -> None:
    (run,) = await purse.runs(1)
    await purse.writes(run, 60)
    await purse.sets(100, tokens=100)
    found = await purse.has()
    assert (found["spent"], found["tokens"]) == (60, 60)
    assert (await purse.asks(run, 41))["outcome"] == "refused"
    assert (await purse.asks(run, 40))["outcome"] == "granted"


async def test_a_larger_budget_counts_at_once_and_one_applied_again_changes_nothing(purse: Purse) -> None:
    """LiteLLM #25760: a raise that only some see."""
    await purse.sets(5)
    (run,) = await purse.runs(1)
    assert (await purse.asks(run))["outcome"] == "refused"
    await purse.sets(10)
    assert (await purse.asks(run))["outcome"] == "granted"
    before = await purse.has()
    await purse.sets(10)
    assert await purse.has() == before


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
@pytest.mark.parametrize("period", ["day", "week", "month"])
async def test_a_period_is_that_of_utc_whatever_the_clock_on_the_wall(purse: Purse, period: str, zone: str) -> None:
    """LiteLLM #10288, #34896: resets at odd hours, or late by the offset of a time zone. #5651, #39726: no reset at all."""
    await purse.tenant.line.execute(f"SET timezone = '{zone}'")
    await purse.sets(10, period=period)
    (run,) = await purse.runs(1)
    await purse.asks(run)
    await purse.writes(run, 10)
    told = (await purse.asks(run))["told"]
    begun = (await purse.has())["begun"]
    length = {"day": 1, "week": 7, "month": ((begun.replace(day=1) + timedelta(days=32)).replace(day=1) - begun).days}[period]
    assert datetime.fromisoformat(told["resets_at"]) == datetime.combine(begun + timedelta(days=length), time(), UTC)
    assert (begun.weekday(), begun.day)[period == "month"] in ((0,) if period == "week" else (1,) if period == "month" else range(7))
    await purse.turns_back(begun=begun - timedelta(days=length))
    assert (await purse.asks(run))["outcome"] == "granted", "a new period has begun, and nobody had to reset anything"
    found = await purse.has()
    assert (found["spent"], found["begun"], found["reserved"]) == (0, begun, 10)


async def test_a_call_that_is_under_way_when_a_period_ends_counts_in_the_next(purse: Purse) -> None:
    await purse.sets(10, period="day")
    first, second = await purse.runs(2)
    await purse.asks(first)
    today = (await purse.has())["begun"]
    await purse.turns_back(begun=today - timedelta(days=1), spent=7, day=today - timedelta(days=1))
    assert (await purse.asks(second))["outcome"] == "refused", "what is reserved may still be spent"
    await purse.writes(first, 4)
    found = await purse.has()
    assert (found["spent"], found["used"], found["reserved"]) == (4, 4, 0)
    assert (await purse.asks(second, 6))["outcome"] == "granted"


async def test_time_that_goes_back_gives_no_second_budget(purse: Purse) -> None:
    await purse.sets(10, period="day")
    (run,) = await purse.runs(1)
    await purse.asks(run)
    await purse.writes(run, 10)
    tomorrow = (await purse.has())["begun"] + timedelta(days=1)
    await purse.turns_back(begun=tomorrow, day=tomorrow)
    assert (await purse.asks(run))["outcome"] == "refused"


async def test_tokens_of_a_day_are_bounded_as_money_is(purse: Purse) -> None:
    await purse.sets(None, tokens=100)
    (run,) = await purse.runs(1)
    assert (await purse.asks(run, 60, input_tokens=41))["told"]["limit"] == "tokensPerDay"
    assert (await purse.asks(run, 60, input_tokens=40))["outcome"] == "granted"
    await purse.writes(run, 60, spend={"input_tokens": 40})
    assert (await purse.asks(run, 1))["outcome"] == "refused"
    today = (await purse.has())["day"]
    await purse.turns_back(day=today - timedelta(days=1))
    assert (await purse.asks(run, 1))["outcome"] == "granted"


async def test_a_model_whose_prices_are_in_another_currency_is_not_asked(purse: Purse) -> None:
    await purse.sets(10)
    (run,) = await purse.runs(1)
    said = await purse.asks(run, currency="USD")
    assert (said["outcome"], said["told"]["limit"], said["told"]["other"]) == ("refused", "currency", "USD")
    assert (await purse.asks(run, currency="EUR"))["outcome"] == "granted"


async def test_a_run_that_is_held_goes_on_when_there_is_more(purse: Purse, scratch: Scratch) -> None:
    await purse.sets(5, on_limit="suspend")
    (run,) = await purse.runs(1)
    told = (await purse.asks(run))["told"]
    hold = "SELECT hansa.budget_hold($1, $2, $3, $4, $5)"
    assert await purse.tenant.app(hold, run.run, run.epoch, told["version"], json.dumps({"by": "budget", **told}))
    assert not await purse.tenant.app(hold, run.run, run.epoch, told["version"], json.dumps(told)), "it is held already"
    due = "SELECT count(*) FROM hansa.waits WHERE tenant_id = $1 AND kind = 'budget' AND look_at <= clock_timestamp()"
    assert await scratch.owner.fetchval(due, purse.tenant.id) == 0
    await purse.sets(50, on_limit="suspend")
    assert await scratch.owner.fetchval(due, purse.tenant.id) == 1
    assert await purse.tenant.app("SELECT hansa.wait_expire($1, $2, 'budget')", run.run) == "queued"
    (again,) = await purse.tenant.claim(1)
    assert (again.run, (await purse.asks(again))["outcome"]) == (run.run, "granted")


async def test_a_budget_that_is_raised_between_refusal_and_hold_holds_nobody(purse: Purse, scratch: Scratch) -> None:
    await purse.sets(5, on_limit="suspend")
    (run,) = await purse.runs(1)
    told = (await purse.asks(run))["told"]
    await purse.sets(50, on_limit="suspend")
    await purse.tenant.app("SELECT hansa.budget_hold($1, $2, $3, $4, $5)", run.run, run.epoch, told["version"], json.dumps(told))
    due = "SELECT count(*) FROM hansa.waits WHERE tenant_id = $1 AND kind = 'budget' AND look_at <= clock_timestamp()"
    assert await scratch.owner.fetchval(due, purse.tenant.id) == 1


async def test_a_run_that_is_held_for_its_budget_can_be_canceled_and_held_by_a_person(purse: Purse, scratch: Scratch) -> None:
    await purse.sets(5, on_limit="suspend")
    first, second = await purse.runs(2)
    for run in (first, second):
        told = (await purse.asks(run))["told"]
        await purse.tenant.app("SELECT hansa.budget_hold($1, $2, $3, $4, $5)", run.run, run.epoch, told["version"], json.dumps(told))
    await purse.tenant.of_run("cancel", first.run)
    await purse.tenant.of_run("suspend", second.run)
    await purse.sets(50, on_limit="suspend")
    waits = await scratch.fetch("SELECT run_id FROM hansa.waits WHERE tenant_id = $1 AND kind = 'budget'", purse.tenant.id)
    assert [row["run_id"] for row in waits] == [second.run]
    assert await purse.tenant.app("SELECT hansa.wait_expire($1, $2, 'budget')", second.run) == "suspended"


async def test_no_run_is_accepted_when_nothing_is_left_but_one_that_may_cost_nothing(purse: Purse, scratch: Scratch) -> None:
    """LiteLLM #14144: a refusal that does not say which budget. LiteLLM #10973 again: models that cost nothing."""
    await purse.sets(10)
    (run,) = await purse.runs(1)
    await purse.asks(run)
    await purse.writes(run, 10)
    new = json.dumps({"id": str(run.session), "agent": "a", "new_session_id": str(run.session)})
    sql = "SELECT row_to_json(s) FROM hansa.run_start($1, 'p', 'r', NULL, NULL, 'local', $2, '1') s"
    said = json.loads(await purse.tenant.app(sql, new))
    assert (said["outcome"], said["answer"]["limit"], said["answer"]["used"], said["answer"]["bound"]) == ("budget_spent", "budget", 10, 10)
    many = "SELECT outcome FROM hansa.run_start_many($1, 'local', '{p}', '{NULL}', '{NULL}', '{NULL}', $2, '{1}')"
    assert await purse.tenant.app(many, [new]) == "budget_spent"
    for kind, name, manifest in (
        ("Agent", "a", {"spec": {"model": {"ref": "p/m", "fallbacks": [{"alias": "free"}]}}}),
        ("ModelProvider", "p", {"spec": {"models": [{"name": "m", "prices": {"output": 1.0}}, {"name": "n", "aliases": ["free"]}]}}),
    ):
        await scratch.execute(
            "INSERT INTO hansa.objects (tenant_id, kind, name, generation, manager, manifest, digest) VALUES ($1, $2, $3, 1, 'm', $4, '')",
            purse.tenant.id, kind, name, json.dumps(manifest),
        )  # fmt: skip
    assert await purse.tenant.start("a") == "accepted"
    await purse.sets(10, on_limit="suspend")
    assert await purse.tenant.start("b") == "accepted", "it is held once it asks a model"


async def test_what_one_tenant_spends_is_not_anothers(scratch: Scratch, purse: Purse) -> None:
    async with connections(scratch) as (app, system):
        other = Purse(scratch, await new_tenant(scratch, app, system))
        for each in (purse, other):
            await each.sets(10)
        (run,) = await purse.runs(1)
        await purse.asks(run)
        await purse.writes(run, 10)
        (another,) = await other.runs(1)
        assert (await other.asks(another))["outcome"] == "granted"
        assert (await other.has())["spent"] == 0
