"""Many at once on few runs: no two functions of the engine ever wait for each other, and its promises hold at the end."""

import asyncio
import random
import time
from collections import deque
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from db.scratch import Scratch
from db.verbs import AGENTS, Held, Tenant, broken_promises, connections, facts, new_tenant

SECONDS = 8.0
CLIENTS = 6
SESSIONS = 6
RUNS = "SELECT id, session_id, agent FROM hansa.runs WHERE tenant_id = $1 AND state NOT IN ('completed', 'failed', 'canceled') LIMIT 40"
CHECKS = "SELECT agent, revision, smoke_run FROM hansa.rollouts WHERE tenant_id = $1 AND state = 'checking'"
WAITS = "SELECT run_id, step, kind FROM hansa.waits WHERE tenant_id = $1 LIMIT 40"
Line = tuple[Tenant, str]
Done = dict[str, deque[str]]
LATE = "UPDATE hansa.runs SET lease_until = now() - interval '1 s' WHERE tenant_id = $1 AND id = $2 AND state = 'running'"


class Client:
    """Does one thing after the other, by chance, with what all clients have. `done`: what each did last, by its processes' ids."""

    def __init__(self, line: Line, owner: asyncpg.Connection, chance: random.Random, held: list[Held], *, done: Done) -> None:
        self.tenant, self.pids = line
        self.owner = owner
        self.chance = chance
        self.held = held
        self.done = done

    async def work(self, until: float) -> int:
        count = 0
        while time.monotonic() < until:
            runs = await self.owner.fetch(RUNS, self.tenant.id)
            try:
                await self._one([dict(run) for run in runs])
            except asyncpg.PostgresError as error:
                error.add_note(
                    f"In: {error.context}\nLast of all clients, by processes: { {pids: list(did) for pids, did in self.done.items()} }"
                )
                raise
            count += 1
        return count

    def _say(self, verb: str) -> None:
        self.done.setdefault(self.pids, deque(maxlen=3)).append(verb)

    async def _one(self, runs: list[dict[str, Any]]) -> None:
        chance, tenant = self.chance, self.tenant
        verb = chance.choice(("claim", "claim", "write", "write", "end", "come", "person", "agent", "rollout", "publish", "renew"))
        if not runs or (verb != "claim" and len(runs) < SESSIONS):
            self._say("start_many")
            await tenant.start_many(chance.choices(AGENTS, k=3))
            return
        run = chance.choice(runs)
        self._say(verb)
        match verb:
            case "claim":
                self.held.extend(await tenant.claim(chance.randint(1, 4)))
                del self.held[:-40]
            case "write" | "end":
                await self._write(chance.choice((None, "waiting")) if verb == "write" else "completed")
            case "come":
                for row in (await self.owner.fetch(WAITS, tenant.id))[:2]:
                    await tenant.come({**row, "run_id": str(row["run_id"])})
            case "person":
                await self._person(run)
            case "agent":
                await tenant.agent(run["agent"], bound=chance.choice((None, 1, 2)), suspended=chance.random() < 0.2)
            case "rollout":
                await self._rollout()
            case "publish":
                await tenant.publish()
            case _:
                await self.owner.execute(LATE, tenant.id, run["id"])
                await tenant.renew(self.held[:8])

    async def _rollout(self) -> None:
        """Revisions of both agents are applied, in the order of their names, or the checks begin of those that are."""
        begun = await self.owner.fetch(CHECKS, self.tenant.id)
        if begun and self.chance.random() < 0.6:
            for row in begun:
                await self.tenant.check(row["agent"], row["revision"], row["smoke_run"])
            return
        newest = await self.owner.fetchval("SELECT coalesce(max(revision), 1) FROM hansa.rollouts WHERE tenant_id = $1", self.tenant.id)
        async with self.tenant.line.transaction():
            for agent in AGENTS:
                await self.tenant.rollout(agent, newest + 1, self.chance.randbytes(1), bound=self.chance.choice((None, 2)))

    async def _write(self, state: str | None) -> None:
        newest = {each.run: each for each in self.held}
        batch = self.chance.sample(list(newest.values()), min(len(newest), 5))
        wait = "event" if state == "waiting" else None
        if batch:
            await self.tenant.write(*((each, state, wait) for each in batch))

    async def _person(self, run: dict[str, Any]) -> None:
        verb = self.chance.choice(("cancel", "suspend", "resume", "fork", "say", "send", "hold"))
        self._say(verb)
        match verb:
            case "resume":
                await self.tenant.resume(run["id"], None)
            case "fork":
                await self.tenant.fork(run["id"], 1)
            case "say":
                await self.tenant.start(run["agent"], session=run["session_id"])
            case "send":
                await self.tenant.send(run["session_id"])
            case "hold":
                if self.held:
                    held = self.chance.choice(self.held)
                    await self.tenant.of_run("hold", held.run, held.epoch)
            case _:
                await self.tenant.of_run(verb, run["id"])


async def all_at_once(scratch: Scratch, seconds: float) -> tuple[Tenant, int]:
    """Let the clients work; how much they did."""
    async with AsyncExitStack() as closing:
        lines = [await closing.enter_async_context(connections(scratch)) for _ in range(CLIENTS)]
        tenant, held = await new_tenant(scratch, *lines[0]), list[Held]()
        until, clients, done = time.monotonic() + seconds, list[Client](), Done()
        for seed, line in enumerate(lines):
            owner = await asyncpg.connect(scratch.settings.database.url)
            closing.push_async_callback(owner.close)
            pids = " and ".join(str(each.get_server_pid()) for each in line)
            clients.append(Client((tenant.at(*line), pids), owner, random.Random(seed), held, done=done))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(client.work(until)) for client in clients]
        return tenant, sum(task.result() for task in tasks)


@pytest.mark.timeout(60)
async def test_no_two_functions_wait_for_each_other(scratch: Scratch) -> None:
    tenant, count = await all_at_once(scratch, SECONDS)
    assert count > 100
    assert broken_promises(await facts(scratch, tenant)) == []


@pytest.mark.timeout(60)
async def test_sessions_that_are_locked_in_any_order_are_found_out(scratch: Scratch) -> None:
    """As a careless change would have it."""
    whole = await scratch.owner.fetchval("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = 'run_write'")
    broken = whole.replace("ORDER BY s.id FOR UPDATE", "ORDER BY random() FOR UPDATE")
    assert broken != whole
    await scratch.execute(broken)
    with pytest.raises(ExceptionGroup) as caught:
        await all_at_once(scratch, 3 * SECONDS)
    assert caught.value.split(asyncpg.DeadlockDetectedError)[1] is None, "each that has failed waited for another one"
