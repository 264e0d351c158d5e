"""The engine's SQL functions as a test calls them, one tenant with two agents in a pool of its own, and the promises that its rows keep.

`broken_promises` knows nothing of how the functions work; test_verbs_machine.py shows that it sees damage.
"""

import itertools
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec

from db.scratch import Scratch

AGENTS = ("a", "b")
CALL: dict[str, Any] = {"step": "1", "name": "t", "attempt": 1, "arguments": {}}
STARTER: dict[str, Any] = {"name": "user:corp:u", "kind": "user", "on_behalf_of": "e", "may": ["runs:start"]}
ENDED = frozenset({"completed", "failed", "canceled"})
FACTS = """SELECT json_build_object(
  'sessions', (SELECT coalesce(json_agg(s), '[]') FROM hansa.sessions s WHERE tenant_id = $1),
  'runs', (SELECT coalesce(json_agg(r ORDER BY r.session_id, r.queued_seq), '[]') FROM hansa.runs r WHERE tenant_id = $1),
  'agents', (SELECT coalesce(json_agg(a), '[]') FROM hansa.agents a WHERE tenant_id = $1),
  'rollouts', (SELECT coalesce(json_agg(l), '[]') FROM hansa.rollouts l WHERE tenant_id = $1 AND state = 'checking'),
  'waits', (SELECT coalesce(json_agg(w), '[]') FROM hansa.waits w WHERE tenant_id = $1),
  'approvals', (SELECT coalesce(json_agg(p), '[]') FROM hansa.approvals p WHERE tenant_id = $1),
  'events', (SELECT coalesce(json_agg(json_build_object('session_id', e.session_id, 'seq', e.seq, 'run_id', e.run_id, 'type', e.type)
    ORDER BY e.session_id, e.seq), '[]') FROM hansa.events e WHERE tenant_id = $1))"""
Row = dict[str, Any]
Facts = dict[str, list[Row]]


class Held(msgspec.Struct):
    """A claim as its worker knows it: `writes` counts what it has written, `steps` gives every wait a step of its own."""

    run: UUID
    session: UUID
    epoch: int
    writes: int = 0


class Tenant:
    """A tenant whose runs only this claims. Each call is one transaction, as in the engine."""

    def __init__(self, app: asyncpg.Connection, system: asyncpg.Connection) -> None:
        self.id = uuid4()
        self.pool = str(self.id)
        self._app = app
        self._system = system
        self._steps = itertools.count(1)
        self._chance = random.Random(0)
        self._turn: tuple[UUID, int] = (UUID(int=0), 0)

    def at(self, app: asyncpg.Connection, system: asyncpg.Connection) -> "Tenant":
        """The same tenant over other connections."""
        other = Tenant(app, system)
        other.id, other.pool, other._steps, other._chance = self.id, self.pool, self._steps, self._chance
        return other

    @property
    def line(self) -> asyncpg.Connection:
        """The app's connection."""
        return self._app

    def _new(self) -> UUID:
        """The same ids in the same order every time, so that what fails fails again."""
        return UUID(int=self._chance.getrandbits(128))

    async def app(self, sql: str, *arguments: Any) -> Any:
        """The value of a function of the app's."""
        async with self._app.transaction():
            await self._app.execute("SELECT set_config('hansa.tenant', $1, true)", str(self.id))
            return await self._app.fetchval(sql, self.id, *arguments)

    async def agent(self, name: str, *, bound: int | None = None, suspended: bool = False, concurrency: str = "Enqueue") -> None:
        await self.app("SELECT hansa.agent_changed($1, $2, 1, $3, $4, $5, $6)", name, suspended, concurrency, self.pool, bound)

    async def suspend(self, *, suspended: bool) -> None:
        """The tenant itself, or let it go on."""
        await self.app("SELECT hansa.tenant_changed($1, $2)", suspended)

    async def start(self, agent: str, *, session: UUID | None = None, priority: int = 0, later: bool = False, **more: Any) -> str:
        """`more`: `revision`, `within`."""
        new = {"id": str(self._new()), "agent": agent, "new_session_id": str(self._new()), "priority": priority}
        new |= {"session_id": str(session)} if session else {"start_at": "2999-01-01T00:00:00Z"} if later else {}
        new |= {} if priority else {"started_by": STARTER}
        new |= {name: value for name, value in more.items() if value is not None}
        sql = "SELECT outcome FROM hansa.run_start($1, 'p', 'r', NULL, NULL, 'local', $2, '\"in\"')"
        return await self.app(sql, json.dumps(new))

    async def start_many(self, agents: Sequence[str]) -> None:
        """Runs in sessions of their own, in one transaction."""
        ids = [{"id": str(self._new()), "new_session_id": str(self._new()), "started_by": STARTER} for _ in agents]
        new = [json.dumps({**each, "agent": agent}) for each, agent in zip(ids, agents, strict=True)]
        none = [None] * len(agents)
        sql = "SELECT count(*) FROM hansa.run_start_many($1, 'local', $2, $2, $3::text[], $4::bytea[], $5, $6)"
        await self.app(sql, ["p"] * len(agents), none, none, new, ["1"] * len(agents))

    async def rollout(self, agent: str, revision: int, digest: bytes, *, bound: int | None = None) -> UUID:
        """A revision that asks for a check is applied; the id of the run that would check it."""
        run = self._new()
        sql = "SELECT hansa.rollout_begin($1, $2, $3, $4, 600, $5, 'Enqueue', $6, $7, $8)"
        await self.app(sql, agent, revision, digest, False, self.pool, bound, run)
        return run

    async def check(self, agent: str, revision: int, run: UUID) -> bool:
        """The message that its check begins has come."""
        sql = "SELECT hansa.rollout_start($1, $2, $3, $4, $5, $6, $7)"
        return await self.app(sql, agent, revision, run, self._new(), '"in"', json.dumps(STARTER))

    async def check_again(self, agent: str) -> str | None:
        return await self.app("SELECT hansa.rollout_again($1, $2, $3)", agent, self._new())

    async def claim(self, limit: int, *, lease: str = "30 seconds") -> list[Held]:
        sql = f"SELECT * FROM hansa.run_claim('w', $1, '{lease}', $2, $3, $4)"
        *rows, last = await self._system.fetch(sql, limit, self.pool, *self._turn)
        self._turn = (last["turn"], last["credit"])
        return [Held(row["id"], row["session_id"], row["epoch"]) for row in rows]

    async def renew(self, held: Sequence[Held]) -> dict[UUID, str | None]:
        sql = "SELECT id, wish FROM hansa.run_renew($1, $2, $3, '30 seconds')"
        rows = await self._system.fetch(sql, [self.id] * len(held), [each.run for each in held], [each.epoch for each in held])
        return {row["id"]: row["wish"] for row in rows}

    async def release(self, held: Sequence[Held]) -> None:
        sql = "SELECT hansa.run_release($1, $2, $3)"
        await self._system.fetch(sql, [self.id] * len(held), [each.run for each in held], [each.epoch for each in held])

    async def budget(self, amount: int | None, *, on_limit: str = "reject", charges: bool = True, tokens: int | None = None) -> None:
        """Set what it may spend."""
        sql = "SELECT hansa.budget_set($1, $2, 'EUR', 'month', $3, $4, '80', $5)"
        await self.app(sql, amount, on_limit, charges, tokens)

    def ask(self, held: Held, step: str, **more: Any) -> Row:
        """A call of at most ten tokens in and ten out, which cost one each."""
        ask: Row = {"run": str(held.run), "epoch": held.epoch, "step": step, "agent": "a", "model": "p/m", "input_tokens": 0}
        ask |= {"output_tokens": 10, "least": 4, "input_price": 1.0, "output_price": 1.0, "currency": None, "lost_tokens": 0}
        return ask | {"lost_cost": 0, "last": True} | more

    async def reserve(self, *asks: Row) -> list[Row]:
        """What is said to calls: n, outcome, output_tokens."""
        sql = (
            "SELECT coalesce(json_agg(json_build_object('n', n, 'outcome', outcome, 'output_tokens', output_tokens) ORDER BY n), '[]') "
            "FROM hansa.budget_reserve($1, $2)"
        )
        return json.loads(await self.app(sql, json.dumps(asks)))

    async def hold_for_budget(self, held: Held, version: int) -> bool:
        """A run that was refused is let go."""
        told = {"by": "budget", "resets_at": "2999-01-01T00:00:00+00:00"}
        return await self.app("SELECT hansa.budget_hold($1, $2, $3, $4, $5)", held.run, held.epoch, version, json.dumps(told))

    async def write(self, *batch: tuple[Held, str | None, str | None], spends: Sequence[Row] = ()) -> list[Row]:
        """Write an event of each run, with the state that it comes to and the kind of wait that it begins, in one transaction."""
        writes: list[dict[str, Any]] = [
            {
                "session": str(each.session), "run": str(each.run), "epoch": each.epoch, "number": each.writes + 1,
                "input_tokens": 0, "output_tokens": 0, "state": state, "waits": [json.dumps(self._wait(kind))] if kind else [],
                "entries": [{"type": f"run.{state}" if state else "log", "step": "1", "data": json.dumps(CALL)}],
                "spends": [spend for spend in spends if spend["run"] == str(each.run)],
            }
            for each, state, kind in batch
        ]  # fmt: skip
        text = await self.app("SELECT coalesce(json_agg(w), '[]') FROM hansa.run_write($1, $2, '{}', '{}', '{}') w", json.dumps(writes))
        written = json.loads(text)
        for each, _, _ in batch:
            each.writes += str(each.run) in {row["run"] for row in written}
        return written

    def _wait(self, kind: str) -> Row:
        step = f"w{next(self._steps)}"
        key = {"child": str(self._new()), "approval": str(self._new()), "event": "e"}.get(kind)
        data: Row = {"kind": "question", "subject": {}} if kind == "approval" else {"agent": "a", "input": 1}
        return {"step": step, "kind": kind, "key": key, "data": data} | ({"seconds": 1e6} if kind in ("timer", "retry") else {})

    async def come(self, wait: Row) -> str:
        """What is waited for has come, or its time is over."""
        if wait["kind"] == "child":
            return await self.app("SELECT hansa.run_returned($1, $2, $3, '{}')", UUID(wait["run_id"]), wait["step"])
        return await self.app("SELECT hansa.wait_expire($1, $2, $3)", UUID(wait["run_id"]), wait["step"])

    async def of_run(self, verb: str, run: UUID, *more: Any) -> Any:
        """cancel, suspend: the run; hold: whether."""
        rest = "".join(f", ${n}" for n in range(3, 3 + len(more)))
        return await self.app(f"SELECT hansa.run_{verb}($1, $2{rest})", run, *more)

    async def resume(self, run: UUID, decision: str | None) -> str:
        return await self.app("SELECT outcome FROM hansa.run_resume($1, $2, $3, '1', 'p')", run, decision)

    async def fork(self, run: UUID, at: int) -> str:
        sql = "SELECT outcome FROM hansa.run_fork($1, 'local', $2, $3, $4, $5, $6)"
        return await self.app(sql, run, at, self._new(), self._new(), json.dumps(STARTER))

    async def send(self, session: UUID) -> str:
        return await self.app("SELECT outcome FROM hansa.event_send($1, $2, $3, 'e', '1')", session, self._new())

    async def publish(self, within: Sequence[str] | None = None) -> int:
        return await self.app("SELECT count(*) FROM hansa.event_publish($1, 'e', '1', $2)", within)

    async def place(self, agent: str, namespace: str) -> None:
        """Where its object stands."""
        await self.app("UPDATE hansa.agents SET namespace = $3 WHERE tenant_id = $1 AND name = $2", agent, namespace)


@asynccontextmanager
async def connections(scratch: Scratch) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Connection]]:
    """One of the app and one of the system."""
    app, system = [await asyncpg.connect(url) for url in (scratch.settings.database.app_url, scratch.settings.database.system_url)]
    try:
        yield app, system
    finally:
        await app.close()
        await system.close()


async def new_tenant(scratch: Scratch, app: asyncpg.Connection, system: asyncpg.Connection) -> Tenant:
    """A fresh tenant with the agents a and b."""
    tenant = Tenant(app, system)
    await admit(scratch, tenant)
    return tenant


async def admit(scratch: Scratch, tenant: Tenant) -> None:
    """Give a tenant its row and the agents a and b."""
    await scratch.add_tenant(tenant.id, str(tenant.id))
    for name in AGENTS:
        await tenant.agent(name)


async def facts(scratch: Scratch, tenant: Tenant) -> Facts:
    """All rows of a tenant that say something of its runs."""
    return json.loads(await scratch.owner.fetchval(FACTS, tenant.id))


def broken_promises(found: Facts) -> list[str]:
    """Everything about a tenant's rows that must never be so between two transactions."""
    wrong: list[str] = []
    waits = {run["id"]: [wait for wait in found["waits"] if wait["run_id"] == run["id"]] for run in found["runs"]}
    for session in found["sessions"]:
        own = [run for run in found["runs"] if run["session_id"] == session["id"]]
        wrong.extend(f"session {session['id'][:4]}: {told}" for told in _of_session(session, own, found["events"]))
    for agent in found["agents"]:
        own = [run for run in found["runs"] if run["agent"] == agent["name"]]
        wrong.extend(f"agent {agent['name']}: {told}" for told in _of_agent(agent, own))
        if agent["checking"] != any(each["agent"] == agent["name"] for each in found["rollouts"]):
            wrong.append(f"agent {agent['name']}: whether a revision is checked is not as its rollouts say")
    pending = {approval["run_id"] for approval in found["approvals"] if approval["state"] == "pending"}
    for run in found["runs"]:
        wrong.extend(
            f"run {run['id'][:4]}, {run['state']}: {told}" for told in _of_run(run, waits[run["id"]], is_asked=run["id"] in pending)
        )
    return wrong


def _of_session(session: Row, own: list[Row], events: list[Row]) -> list[str]:
    wrong: list[str] = []
    numbers = [event["seq"] for event in events if event["session_id"] == session["id"]]
    if numbers != list(range(1, session["last_seq"] + 1)):
        wrong.append(f"the log ends at {session['last_seq']} and has {numbers}")
    active = next((run["id"] for run in own if run["state"] not in ENDED), None)
    if session["active_run"] != active:
        wrong.append(f"{session['active_run']} is its active run, and {active} is the oldest that has not ended")
    if own and session["newest_run"] != own[-1]["queued_seq"]:
        wrong.append(f"its newest run has not number {session['newest_run']}")
    for run in own:
        waits_its_turn = run["state"] == "queued" and run["gate"] == "session"
        if run["id"] != active and run["state"] not in ENDED and not waits_its_turn:
            wrong.append(f"{run['id'][:4]} is {run['state']} ({run['gate']}) behind another")
        if run["id"] == active and waits_its_turn:
            wrong.append(f"{run['id'][:4]} waits for its turn, and it is its turn")
    return wrong


def _of_agent(agent: Row, own: list[Row]) -> list[str]:
    wrong: list[str] = []
    holders = [run for run in own if run["slot"]]
    if agent["held"] != len(holders):
        wrong.append(f"{agent['held']} slots are counted, and {len(holders)} are held")
    if any(run["state"] != "running" and (run["state"], run["gate"]) != ("queued", None) for run in holders):
        wrong.append("a slot is held by a run that is not worked on")
    stuck = [run for run in own if run["state"] == "queued" and run["gate"] == "agent"]
    if stuck and (agent["bound"] is None or agent["held"] < agent["bound"]):
        wrong.append(f"{len(stuck)} runs wait for a slot, and {agent['held']} of {agent['bound']} are held")
    if not agent["suspended"] and any(run["suspended_by"] == "agent" for run in own):
        wrong.append("a run is held because of its agent, which is not")
    return wrong


def _of_run(run: Row, waits: list[Row], *, is_asked: bool) -> list[str]:
    state, kinds = run["state"], {wait["kind"] for wait in waits}
    wanted = run["cancel_requested_at"] is not None or run["suspend_requested_at"] is not None
    asked_behind = state == "queued" and run["gate"] == "session" and run["cancel_requested_at"] is None
    rules = {
        "it has ended and waits": state in ENDED and bool(waits),
        "it has ended and somebody is asked": state in ENDED and is_asked,
        "it has ended without a time": (state in ENDED) != (run["finished_at"] is not None),
        "it waits for nothing": state == "waiting" and not waits,
        "it is to be canceled or held, and nobody will do it": state in ("waiting", "suspended") and wanted,
        "it is queued, and to be canceled": state == "queued" and run["cancel_requested_at"] is not None and not asked_behind,
        "nobody knows why it is held": (state == "suspended") != (run["suspended_by"] is not None),
        "it has a gate": state != "queued" and run["gate"] is not None,
        "its time is to come, and nobody will tell": state == "queued" and (run["gate"] == "time") != ("start" in kinds),
        "it goes on before it is to be tried again": state == "queued" and run["gate"] is None and "retry" in kinds,
    }
    return [told for told, broken in rules.items() if broken]
