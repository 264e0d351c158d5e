"""The engine's SQL functions by themselves: fences, numbers of writes, order of a session, order of locks."""

import asyncio
import json
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from db.scratch import Scratch

TENANT, SESSION = UUID(int=0xA), UUID(int=0x5)
FIRST, SECOND, THIRD = UUID(int=0x300), UUID(int=0x200), UUID(int=0x100)
"""Runs in the order in which they are queued, which is not that of their ids."""


class Verbs:
    """One connection of the app and one of the system."""

    def __init__(self, app: asyncpg.Connection, system: asyncpg.Connection) -> None:
        self.app = app
        self.system = system

    async def start(self, run: UUID, *, fresh: bool = False) -> str:
        new = {"id": str(run), "agent": "a", "new_session_id": str(SESSION)} | ({} if fresh else {"session_id": str(SESSION)})
        sql = "SELECT outcome FROM hansa.run_start($1, 'p', 'r', NULL, NULL, 'local', $2, $3)"
        return await self.app.fetchval(sql, TENANT, json.dumps(new), json.dumps(str(run)))

    async def claim(self, *, lease: str = "30 seconds") -> list[tuple[UUID, int]]:
        rows = await self.system.fetch(f"SELECT id, epoch FROM hansa.run_claim('w', 16, '{lease}', 'default', '{UUID(int=0)}', 0)")
        return [(row["id"], row["epoch"]) for row in rows if row["id"]]

    async def write(self, run: UUID, epoch: int, number: int, *, end: bool = False) -> int | None:
        kind, step = ("run.completed", None) if end else ("log", f"{number}")
        entry: dict[str, Any] = {"type": kind, "step": step, "data": "{}"}
        more = {"state": "completed", "output": '"out"'} if end else {}
        of = {"session": str(SESSION), "run": str(run), "epoch": epoch, "number": number}
        one: dict[str, Any] = {**of, "input_tokens": 0, "output_tokens": 0, "entries": [entry]}
        sql = "SELECT seq FROM hansa.run_write($1, $2, '{}', '{}', '{}')"
        return await self.app.fetchval(sql, TENANT, json.dumps([one | more]))

    async def load(self, run: UUID, epoch: int) -> list[Any] | None:
        """What was said before the run; None: fenced."""
        row = await self.app.fetchrow("SELECT run, history FROM hansa.run_load($1, $2, $3)", TENANT, [run], [epoch])
        return None if row is None else json.loads(row["history"] or "[]")


@pytest.fixture
async def verbs(scratch: Scratch) -> Any:
    await scratch.add_tenant(TENANT, "a")
    manifest = json.dumps({"spec": {}})
    await scratch.execute(
        "INSERT INTO hansa.objects (tenant_id, kind, name, generation, manager, manifest, digest) "
        "VALUES ($1, 'Agent', 'a', 1, 'm', $2, '')",
        *(TENANT, manifest),
    )
    await scratch.execute(
        "INSERT INTO hansa.agent_revisions (tenant_id, agent, revision, digest, manifest) VALUES ($1, 'a', 1, '', $2)", TENANT, manifest
    )
    await scratch.execute(
        "INSERT INTO hansa.agents (tenant_id, name, revision, suspended, concurrency, pool) "
        "VALUES ($1, 'a', 1, false, 'Enqueue', 'default')",
        TENANT,
    )
    app, system = [await asyncpg.connect(url) for url in (scratch.settings.database.app_url, scratch.settings.database.system_url)]
    try:
        yield Verbs(app, system)
    finally:
        await app.close()
        await system.close()


async def log(scratch: Scratch) -> list[str]:
    return [row["type"] for row in await scratch.fetch("SELECT type FROM hansa.events ORDER BY seq")]


async def test_a_write_that_is_sent_again_is_done_once(scratch: Scratch, verbs: Verbs) -> None:
    await verbs.start(FIRST, fresh=True)
    assert await verbs.claim() == [(FIRST, 1)]
    assert await verbs.write(FIRST, 1, 1) == 2
    assert await verbs.write(FIRST, 1, 1) == 2
    assert await verbs.write(FIRST, 1, 3) is None, "a number was left out"
    assert await verbs.write(FIRST, 1, 2, end=True) == 3
    assert await verbs.write(FIRST, 1, 2, end=True) == 3
    assert await verbs.write(FIRST, 1, 3) is None, "the run has ended"
    assert await log(scratch) == ["run.queued", "log", "run.completed"]


async def test_an_older_epoch_writes_nothing(scratch: Scratch, verbs: Verbs) -> None:
    await verbs.start(FIRST, fresh=True)
    assert await verbs.claim(lease="0 seconds") == [(FIRST, 1)]
    assert await verbs.claim() == [(FIRST, 2)]
    assert await verbs.claim() == []
    assert await verbs.write(FIRST, 1, 1) is None
    assert await verbs.load(FIRST, 1) is None
    assert await verbs.system.fetch("SELECT hansa.run_renew($1, $2, '{1}', '30 seconds')", [TENANT], [FIRST]) == []
    assert await verbs.system.fetchval("SELECT hansa.run_release($1, $2, '{1}')", [TENANT], [FIRST]) == 0
    assert await verbs.write(FIRST, 2, 1) == 2
    assert await log(scratch) == ["run.queued", "log"]


async def test_a_session_is_worked_off_in_the_order_of_its_log_and_not_of_ids(verbs: Verbs) -> None:
    await verbs.start(FIRST, fresh=True)
    for run in (SECOND, THIRD):
        assert await verbs.start(run) == "accepted"
    history: list[str] = []
    for run in (FIRST, SECOND, THIRD):
        assert await verbs.claim() == [(run, 1)]
        assert [turn[0] for turn in await verbs.load(run, 1) or []] == history
        await verbs.write(run, 1, 1, end=True)
        history.append(str(run))


async def test_a_run_given_back_is_taken_at_once_and_counts_as_no_loss(scratch: Scratch, verbs: Verbs) -> None:
    await verbs.start(FIRST, fresh=True)
    for epoch in (1, 2, 3):
        assert await verbs.claim() == [(FIRST, epoch)]
        assert await verbs.system.fetchval("SELECT hansa.run_release($1, $2, $3)", [TENANT], [FIRST], [epoch]) == 1
    assert await verbs.claim(lease="0 seconds") == [(FIRST, 4)]
    assert await verbs.claim() == [(FIRST, 5)]
    assert [row["takeovers"] for row in await scratch.fetch("SELECT takeovers FROM hansa.runs")] == [1]


async def test_a_run_given_back_with_a_pause_is_taken_after_it_and_does_not_age_meanwhile(scratch: Scratch, verbs: Verbs) -> None:
    await verbs.start(FIRST, fresh=True)
    for epoch in range(1, 9):
        assert await verbs.claim(lease="1 hour") == [(FIRST, epoch)]
        await verbs.system.fetchval("SELECT hansa.run_release($1, $2, $3, '1 hour')", [TENANT], [FIRST], [epoch])
        assert await verbs.claim() == []
        an_hour_later = "lease_until = lease_until - interval '1 hour', claimed_at = claimed_at - interval '1 hour'"
        await scratch.execute(f"UPDATE hansa.runs SET {an_hour_later}")
    row = (await scratch.fetch("SELECT takeovers, extract(epoch FROM active)::float8 AS active FROM hansa.runs"))[0]
    assert row["takeovers"] <= 0
    assert row["active"] < 60


@pytest.mark.parametrize("verb", ["write", "cancel", "suspend"])
async def test_every_verb_waits_for_the_session_before_it_locks_a_run(scratch: Scratch, verbs: Verbs, verb: str) -> None:
    """Were it the other way round, the end of one run and the canceling of the next could wait for each other."""
    await verbs.start(FIRST, fresh=True)
    await verbs.start(SECOND)
    await verbs.claim()
    holder = scratch.owner.transaction()
    await holder.start()
    await scratch.execute("SELECT FROM hansa.sessions FOR UPDATE")
    waits = {
        "write": lambda: verbs.write(FIRST, 1, 1, end=True),
        "cancel": lambda: verbs.app.fetchval("SELECT hansa.run_cancel($1, $2)", TENANT, SECOND),
        "suspend": lambda: verbs.app.fetchval("SELECT hansa.run_suspend($1, $2)", TENANT, FIRST),
    }
    waiting = asyncio.create_task(waits[verb]())
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while not await scratch.owner.fetchval(blocked):
        await asyncio.sleep(0.02)
    assert not waiting.done()
    assert len(await scratch.fetch("SELECT id FROM hansa.runs FOR UPDATE NOWAIT")) == 2, "a run is locked by who waits for its session"
    await holder.rollback()
    assert await waiting is not None


async def test_a_locked_run_holds_up_no_claim(scratch: Scratch, verbs: Verbs) -> None:
    await verbs.start(FIRST, fresh=True)
    holder = scratch.owner.transaction()
    await holder.start()
    await scratch.execute("SELECT FROM hansa.runs FOR UPDATE")
    assert await asyncio.wait_for(verbs.claim(), 5) == []
    await holder.rollback()
    assert await verbs.claim() == [(FIRST, 1)]
