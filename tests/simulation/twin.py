"""A tenant whose every verb is done twice: by the SQL in PostgreSQL and by the model. What the two answer, and their rows, must agree.

Times are not compared, only whether there is one; nor what a value is referred to by.
"""

import json
import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from db.scratch import Scratch
from db.verbs import Held, Tenant
from simulation.database import ModelDatabase
from simulation.rows import RunRow
from simulation.tables import Row

CALL = re.compile(r"hansa\.(\w+)\((.*)\)")
ARGUMENT = re.compile(r"\$(\d+)(?:::[a-z\[\]]+)?|'([^']*)'|(NULL)|(\d+)")
TABLES = {
    "sessions": ("id", "agent", "last_seq", "newest_run", "active_run", "forked_from", "forked_seq", "revision", "smoke", "namespace"),
    "runs": (
        *("id", "session_id", "queued_seq", "agent", "revision", "input", "state", "gate", "pool", "priority", "slot", "woken"),
        *("rolled_back", "interrupted", "output", "error", "input_tokens", "output_tokens", "epoch", "takeovers", "writes", "attempt"),
        *("cancel_requested_at", "suspend_requested_at", "suspended_by", "parent_run", "parent_step", "depth", "started_by", "finished_at"),
    ),
    "events": ("session_id", "seq", "run_id", "type", "step", "data"),
    "waits": ("run_id", "step", "kind", "key", "look_at"),
    "approvals": ("id", "run_id", "step", "kind", "subject", "state", "decided_by", "comment", "answer", "expires_at"),
    "mailbox": ("session_id", "id", "name", "data"),
    "agents": ("name", "revision", "suspended", "concurrency", "pool", "bound", "held", "checking", "namespace"),
    "rollouts": ("agent", "revision", "state", "reason", "smoke_run", "seconds", "concurrency", "pool", "bound"),
    "outbox": ("id", "kind", "key", "payload"),
    "budgets": ("amount", "on_limit", "charges_lost", "tokens_per_day", "spent", "reserved", "tokens", "tokens_reserved", "version"),
    "reservations": ("run_id", "step", "epoch", "agent", "model", "cost", "tokens"),
    "usage": ("agent", "model", "calls", "input_tokens", "output_tokens", "cost", "lost_calls", "lost_tokens", "lost_cost"),
}
LEASES_RUN_OUT = """UPDATE hansa.runs r SET lease_until = now() - interval '1 hour' + n.n * interval '1 s'
  FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM hansa.runs WHERE tenant_id = $1 AND state = 'running' AND {}) n
  WHERE r.tenant_id = $1 AND r.id = n.id"""
JSON = frozenset({"input", "output", "error", "data", "subject", "answer", "payload", "started_by"})
Rows = dict[str, list[Row]]


class Twin(Tenant):
    """Does what a tenant does, and the same with the model; raises what differs."""

    def __init__(self, app: asyncpg.Connection, system: asyncpg.Connection, model: ModelDatabase) -> None:
        super().__init__(app, system)
        self.model = model

    async def app(self, sql: str, *arguments: Any) -> Any:
        found = await super().app(sql, *arguments)
        if "budget_reserve" in sql:
            return found
        if sql.startswith("UPDATE"):
            return found
        compare(sql, _shaped(sql, found), _asked(self.model, sql, (self.id, *arguments)))
        return found

    async def place(self, agent: str, namespace: str) -> None:
        await super().place(agent, namespace)
        if agent in self.model.agents:
            self.model.agents[agent].namespace = namespace

    async def claim(self, limit: int, *, lease: str = "30 seconds") -> list[Held]:
        held = await super().claim(limit, lease=lease)
        rows = self.model.run_claim("w", limit, timedelta(seconds=30), self.pool, None, 0)[:-1]
        compare("run_claim", sorted([each.run, each.epoch] for each in held), sorted([row["id"], row["epoch"]] for row in rows))
        await self._load(held)
        return held

    async def _load(self, held: Sequence[Held]) -> None:
        columns = "run, agent, revision, input, takeovers, attempt, depth, wish, history, steps, started_by"
        sql = f"SELECT coalesce(json_agg(l ORDER BY run), '[]') FROM (SELECT {columns} FROM hansa.run_load($1, $2, $3)) l"
        runs, epochs = [each.run for each in held], [each.epoch for each in held]
        found = json.loads(await super().app(sql, runs, epochs))
        rows = [{name: row[name] for name in columns.split(", ")} for row in self.model.run_load(self.id, runs, epochs)]
        mine = [row | {name: _plain(row[name]) for name in ("input", "history", "steps", "started_by")} for row in rows]
        compare("run_load", found, sorted(_built(mine), key=lambda row: row["run"]))

    async def reserve(self, *asks: Row) -> list[Row]:
        found = await super().reserve(*asks)
        rows = self.model.budget_reserve(self.id, json.dumps(asks))
        compare("budget_reserve", found, [{name: row[name] for name in ("n", "outcome", "output_tokens")} for row in rows])
        return found

    async def renew(self, held: Sequence[Held]) -> dict[UUID, str | None]:
        found = await super().renew(held)
        rows = self.model.run_renew(None, [each.run for each in held], [each.epoch for each in held], timedelta(seconds=30))
        compare("run_renew", found, {row["id"]: row["wish"] for row in rows})
        return found

    async def release(self, held: Sequence[Held]) -> None:
        await super().release(held)
        self.model.run_release(None, [each.run for each in held], [each.epoch for each in held], timedelta())
        await self._spread(
            "lease_until <= clock_timestamp()", [run for run in self.model.runs.values() if run.lease_until <= self.model.now()]
        )

    async def leases_run_out(self) -> None:
        """All of them."""
        await self._spread("true", self.model.runs.values())

    async def _spread(self, lost: str, runs: Iterable[RunRow]) -> None:
        """Leases that are over ended one after the other: which is first is else for the planner to say."""
        await super().app(LEASES_RUN_OUT.format(lost))
        for n, run in enumerate(sorted((run for run in runs if run.state == "running"), key=lambda run: run.id)):
            run.lease_until = n - 3600.0

    async def falls_due(self, scratch: Scratch, wait: Row) -> None:
        """The time of a wait has come, and is noticed."""
        run, step = UUID(wait["run_id"]), wait["step"]
        past = "UPDATE hansa.waits SET look_at = now() - interval '1 s' WHERE tenant_id = $1 AND run_id = $2 AND step = $3"
        await scratch.execute(past, self.id, run, step)
        self.model.waits[run, step].look_at = -1.0
        # Those of other walks may be due as well.
        sql = "SELECT run_id, step FROM hansa.waits_due(1000, '1000000 seconds') WHERE tenant_id = $1"
        real = await self._system.fetch(sql, self.id)
        *mine, _ = self.model.waits_due(1000, timedelta(seconds=1e6))
        compare("waits_due", [dict(row) for row in real], [{"run_id": row["run_id"], "step": row["step"]} for row in mine])

    async def rows(self, scratch: Scratch) -> tuple[Rows, Rows]:
        """Those of PostgreSQL, and those of the model."""
        aggregates = ", ".join(
            f"'{name}', (SELECT coalesce(json_agg(t), '[]') FROM (SELECT {', '.join(columns)} FROM hansa.{name} WHERE tenant_id = $1) t)"
            for name, columns in TABLES.items()
        )
        found = json.loads(await scratch.owner.fetchval(f"SELECT json_build_object({aggregates})", self.id))
        model = self.model
        tables: dict[str, Sequence[msgspec.Struct]] = {
            "sessions": list(model.sessions.values()),
            "runs": list(model.runs.values()),
            "events": [event for session in model.sessions.values() for event in session.events],
            "waits": list(model.waits.values()),
            "approvals": list(model.approvals.values()),
            "mailbox": model.mailbox,
            "agents": list(model.agents.values()),
            "rollouts": list(model.rollouts.values()),
            "outbox": list(model.outbox.values()),
            "budgets": [] if model.budget is None else [model.budget],
            "reservations": list(model.reservations.values()),
            "usage": list(model.usage.values()),
        }
        mine = {name: [{column: _cell(row, column) for column in TABLES[name]} for row in rows] for name, rows in tables.items()}
        return {name: _comparable(rows) for name, rows in found.items()}, {name: _comparable(_built(rows)) for name, rows in mine.items()}


def compare(what: str, real: Any, model: Any) -> None:
    """Say how the model differs."""
    if real != model:  # seldom: it takes time
        assert _built(real) == _built(model), f"{what}: PostgreSQL says {_built(real)}, and the model {_built(model)}"


def _asked(model: ModelDatabase, sql: str, arguments: tuple[Any, ...]) -> Any:
    """What the model answers to a statement, in the shape that the statement gives it."""
    found = CALL.search(sql)
    assert found is not None, sql
    places = ARGUMENT.finditer(found[2])
    given = [arguments[int(each[1]) - 1] if each[1] else None if each[3] else int(each[4]) if each[4] else each[2] for each in places]
    if found[1] == "run_write":
        given[2:] = [[], [], []]
    answer = getattr(model, found[1])(*given)
    if "count(*)" in sql:
        return len(answer)
    if "json_agg" in sql:
        return sorted(_built(answer), key=lambda row: row["run"])
    return answer[0]["outcome"] if "SELECT outcome" in sql else _shaped(sql, answer)


def _shaped(sql: str, answer: Any) -> Any:
    """An answer without what can't be the same."""
    if "json_agg" in sql:
        return sorted(json.loads(answer), key=lambda row: row["run"])
    if isinstance(answer, str) and answer.startswith("{"):
        run = json.loads(answer)
        for name in ("created_at", "started_at", "finished_at"):
            run.pop(name, None)
        for wait in run["waits"]:
            wait.pop("until", None)
        return run
    return None if answer == "" else answer


def _built(value: Any) -> Any:
    return msgspec.to_builtins(value, str_keys=True)


def _plain(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _cell(row: msgspec.Struct, column: str) -> Any:
    value = getattr(row, column)
    return _plain(value) if column in JSON else value


def _comparable(rows: list[Row]) -> list[Row]:
    """In one order; of times only whether there are any."""
    told = [{name: value is not None if name.endswith("_at") else value for name, value in row.items()} for row in rows]
    return sorted(told, key=lambda row: msgspec.json.encode(row, order="sorted"))
