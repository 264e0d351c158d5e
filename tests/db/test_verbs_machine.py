"""Whatever is done with runs, in whatever order: sessions stay in order, slots are counted, nothing is stuck."""

import asyncio
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from db.scratch import Scratch, open_scratch
from db.verbs import AGENTS, Held, Row, Tenant, broken_promises, connections, facts, new_tenant
from stack import Stack

T = TypeVar("T")
SETTINGS = settings(
    max_examples=30,
    stateful_step_count=35,
    deadline=None,
    database=None,
    derandomize=True,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
ANY = st.integers(0, 1000)
NAMES = st.sampled_from(AGENTS)
BOUNDS = st.sampled_from([None, 1, 1, 2, 3])
WAITS = st.sampled_from(["timer", "child", "approval", "event", "retry"])
ENDS = st.sampled_from(["completed", "failed", "canceled", "needs_review"])
DECISIONS = st.sampled_from([None, "done", "retry", "fail"])
POLICIES = st.sampled_from(["Enqueue", "Enqueue", "Reject", "Interrupt", "Rollback"])


class Engine(RuleBasedStateMachine):
    """One tenant's runs. The loop and the database are those of the test."""

    runner: asyncio.Runner
    scratch: Scratch
    lines: tuple[asyncpg.Connection, asyncpg.Connection]

    def __init__(self) -> None:
        super().__init__()
        self._held: list[Held] = []
        self._runs: list[Row] = []
        self._waits: list[Row] = []
        self._agents: dict[str, Row] = {}

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        self.tenant: Tenant = self.do(new_tenant(self.scratch, *self.lines))
        self.do(self._something_under_way())

    async def _something_under_way(self) -> None:
        """What all examples begin with, since hypothesis leaves some rules out of each."""
        await self.tenant.agent("b", bound=1)
        await self.tenant.start_many(["a", "a", "b", "b", "b"])
        for run in (await facts(self.scratch, self.tenant))["runs"]:
            await self.tenant.start(run["agent"], session=UUID(run["session_id"]))
        self._held = await self.tenant.claim(3)
        for held, kind in zip(self._held, ("timer", "approval"), strict=False):
            await self.tenant.write((held, None, kind))

    def run_of(self, n: int) -> UUID:
        return UUID(self._runs[n % len(self._runs)]["id"])

    @rule(agent=NAMES, priority=st.integers(-1, 1), later=st.booleans())
    def start(self, *, agent: str, priority: int, later: bool) -> None:
        self.do(self.tenant.start(agent, priority=priority, later=later))

    @rule()
    def start_many(self) -> None:
        self.do(self.tenant.start_many(["b", "a", "b"]))

    @precondition(lambda self: self._runs)
    @rule(n=ANY)
    def say_more(self, n: int) -> None:
        run = self._runs[n % len(self._runs)]
        self.do(self.tenant.start(run["agent"], session=UUID(run["session_id"])))

    @rule(limit=st.integers(2, 5))
    def claim(self, limit: int) -> None:
        self._held.extend(self.do(self.tenant.claim(limit)))

    @precondition(lambda self: self._held)
    @rule(n=ANY, kind=st.none() | st.sampled_from(["timer", "child", "approval", "event"]))
    def write(self, n: int, kind: str | None) -> None:
        self.do(self.tenant.write((self._held[n % len(self._held)], None, kind)))

    @precondition(lambda self: self._held)
    @rule(n=ANY, kind=WAITS)
    def park(self, n: int, kind: str) -> None:
        self.do(self.tenant.write((self._held[n % len(self._held)], "waiting", kind)))

    @precondition(lambda self: self._held)
    @rule(n=ANY, state=ENDS)
    def end(self, n: int, state: str) -> None:
        self.do(self.tenant.write((self._held[n % len(self._held)], state, None)))

    @precondition(lambda self: self._held)
    @rule(states=st.lists(ENDS, min_size=1, max_size=4))
    def end_many(self, states: list[str]) -> None:
        newest = {each.run: each for each in self._held}
        self.do(self.tenant.write(*((each, state, None) for each, state in zip(newest.values(), states, strict=False))))

    @precondition(lambda self: self._waits)
    @rule(n=ANY)
    def what_is_waited_for_comes(self, n: int) -> None:
        self.do(self.tenant.come(self._waits[n % len(self._waits)]))

    @precondition(lambda self: self._runs)
    @rule(n=ANY)
    def send_an_event(self, n: int) -> None:
        self.do(self.tenant.send(UUID(self._runs[n % len(self._runs)]["session_id"])))

    @rule()
    def publish_an_event(self) -> None:
        self.do(self.tenant.publish())

    @precondition(lambda self: self._runs)
    @rule(n=ANY, verb=st.sampled_from(["cancel", "suspend"]))
    def cancel_or_suspend(self, n: int, verb: str) -> None:
        self.do(self.tenant.of_run(verb, self.run_of(n)))

    @precondition(lambda self: self._held)
    @rule(n=ANY)
    def hold(self, n: int) -> None:
        held = self._held[n % len(self._held)]
        self.do(self.tenant.of_run("hold", held.run, held.epoch))

    @precondition(lambda self: self._runs)
    @rule(n=ANY, decision=DECISIONS)
    def resume(self, n: int, decision: str | None) -> None:
        self.do(self.tenant.resume(self.run_of(n), decision))

    @precondition(lambda self: self._runs)
    @rule(n=ANY, at=st.integers(1, 8))
    def fork(self, n: int, at: int) -> None:
        self.do(self.tenant.fork(self.run_of(n), at))

    @precondition(lambda self: self._held)
    @rule(give_back=st.booleans())
    def release_or_renew(self, *, give_back: bool) -> None:
        self.do(self.tenant.release(self._held) if give_back else self.tenant.renew(self._held))

    @rule()
    def all_leases_run_out(self) -> None:
        past = "UPDATE hansa.runs SET lease_until = now() - interval '1 s' WHERE tenant_id = $1 AND state = 'running'"
        self.do(self.scratch.execute(past, self.tenant.id))

    @rule(agent=NAMES, bound=BOUNDS, suspended=st.booleans(), policy=POLICIES)
    def change_the_agent(self, *, agent: str, bound: int | None, suspended: bool, policy: str) -> None:
        self.do(self.tenant.agent(agent, bound=bound, suspended=suspended, concurrency=policy))

    @rule(agent=NAMES)
    def delete_the_agent(self, agent: str) -> None:
        self.do(self.tenant.app("SELECT hansa.agent_deleted($1, $2)", agent))
        self.do(self.tenant.agent(agent))

    @invariant()
    def keeps_its_promises(self) -> None:
        if not hasattr(self, "tenant"):
            return
        found = self.do(facts(self.scratch, self.tenant))
        self._runs, self._waits = found["runs"], found["waits"]
        # Lost claims are tried too, but few of them.
        running = {(run["id"], run["epoch"]) for run in self._runs if run["state"] == "running"}
        stale = [each for each in self._held if (str(each.run), each.epoch) not in running]
        self._held = [each for each in self._held if each not in stale] + stale[-1:]
        assert broken_promises(found) == []
        for agent in found["agents"]:
            before = self._agents.get(agent["name"])
            if before is not None and agent["bound"] is not None and before["bound"] == agent["bound"]:
                assert agent["held"] <= max(agent["bound"], before["held"]), "more runs than the bound were let through"
            self._agents[agent["name"]] = agent


@pytest.fixture
def place(stack: Stack) -> Iterator[type[Engine]]:
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as folder:
        closing = AsyncExitStack()
        scratch = runner.run(closing.enter_async_context(open_scratch(stack, Path(folder))))
        lines = runner.run(closing.enter_async_context(connections(scratch)))
        try:
            yield type("Placed", (Engine,), {"runner": runner, "scratch": scratch, "lines": lines})
        finally:
            runner.run(closing.aclose())


@pytest.mark.timeout(150)
def test_whatever_is_done_with_runs_they_keep_their_promises(place: type[Engine]) -> None:
    run_state_machine_as_test(place, settings=SETTINGS)


FILL = "PERFORM hansa.slots_fill(p_tenant, v_agent);"
DAMAGE = {
    "slot_leave": (FILL, ""),
    "run_ended": ("IF v_active = p_run THEN", "IF false THEN"),
    "waits_drop": ("DELETE FROM hansa.waits WHERE", "SELECT * FROM hansa.waits WHERE"),
}


@pytest.mark.parametrize("function", DAMAGE)
@pytest.mark.timeout(150)
def test_a_function_with_a_defect_is_found_out(place: type[Engine], function: str) -> None:
    good, bad = DAMAGE[function]

    async def damage() -> None:
        whole = await place.scratch.owner.fetchval("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = $1", function)
        broken = whole.replace(good, bad).replace("RETURNING * LOOP", "LOOP" if bad.startswith("SELECT *") else "RETURNING * LOOP")
        assert broken != whole
        await place.scratch.execute(broken)

    place.runner.run(damage())
    with pytest.raises((AssertionError, asyncpg.PostgresError)):
        run_state_machine_as_test(place, settings=settings(SETTINGS, phases=(Phase.generate,)))
