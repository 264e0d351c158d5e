"""A tenant's budget as a test of the SQL functions uses it."""

import json
from typing import Any

from db.scratch import Scratch
from db.verbs import Held, Row, Tenant

MODEL = "p/m"


class Purse:
    """A tenant with a budget: what it may spend, asks for, settles; a token of an answer costs one."""

    def __init__(self, scratch: Scratch, tenant: Tenant) -> None:
        self.tenant = tenant
        self._scratch = scratch

    async def sets(self, amount: int | None, *, tokens: int | None = None, **more: Any) -> None:
        """`more`: currency, period, on_limit, charges_lost, warn_at."""
        given = {"currency": "EUR", "period": "month", "on_limit": "reject", "charges_lost": True, "warn_at": 80, **more}
        await self.tenant.app("SELECT hansa.budget_set($1, $2, $3, $4, $5, $6, $7, $8)", amount, *given.values(), tokens)

    async def runs(self, count: int) -> list[Held]:
        """So many runs, all of them driven."""
        for _ in range(count):
            await self.tenant.start("a")
        return await self.tenant.claim(count)

    async def asks(self, held: Held, output: int = 10, *, at: "Purse | None" = None, **more: Any) -> Row:
        """A call of at most so many tokens of answer; what is said to it."""
        ask = {
            "run": str(held.run),
            "epoch": held.epoch,
            "step": "1",
            "agent": "a",
            "model": MODEL,
            "input_tokens": 0,
            "output_tokens": output,
        }
        ask |= {"least": output, "input_price": 0.0, "output_price": 1.0, "currency": None, "lost_tokens": 0, "lost_cost": 0, "last": True}
        sql = "SELECT row_to_json(r) FROM hansa.budget_reserve($1, $2) r"
        return json.loads(await (at or self).tenant.app(sql, json.dumps([ask | more])))

    async def writes(self, held: Held, cost: int | None = None, *, state: str | None = None, **more: Any) -> list[Row]:
        """A write, with what the call at step 1 has cost, if it is over."""
        spend = {"run": str(held.run), "step": "1", "agent": "a", "model": MODEL, "calls": 1, "input_tokens": 0, "output_tokens": cost}
        spend |= {"cost": cost, "lost_calls": 0, "lost_tokens": 0, "lost_cost": 0, **more.pop("spend", {})}
        write = {"session": str(held.session), "run": str(held.run), "epoch": held.epoch, "number": held.writes + 1, "input_tokens": 0}
        write |= {"output_tokens": 0, "state": state, "entries": [{"type": "log", "step": "1", "data": "{}"}], **more}
        write |= {} if cost is None else {"spends": [spend]}
        sql = "SELECT coalesce(json_agg(w), '[]') FROM hansa.run_write($1, $2, '{}', '{}', '{}') w"
        written = json.loads(await self.tenant.app(sql, json.dumps([write])))
        held.writes += bool(written)
        return written

    async def has(self) -> Row:
        """Its row, and what is kept of usage and reservations."""
        (row,) = await self._scratch.fetch("SELECT * FROM hansa.budgets WHERE tenant_id = $1", self.tenant.id)
        (used,) = await self._scratch.fetch(
            "SELECT coalesce(sum(cost + lost_cost), 0)::bigint AS used, coalesce(sum(calls), 0)::bigint AS calls, "
            "coalesce(sum(lost_calls), 0)::bigint AS lost FROM hansa.usage WHERE tenant_id = $1",
            self.tenant.id,
        )
        (held,) = await self._scratch.fetch("SELECT count(*) AS reservations FROM hansa.reservations WHERE tenant_id = $1", self.tenant.id)
        return row | used | held

    async def turns_back(self, **columns: Any) -> None:
        """Put its period or day into the past, as if time had gone on since."""
        for name, value in columns.items():
            await self._scratch.execute(f"UPDATE hansa.budgets SET {name} = $2 WHERE tenant_id = $1", self.tenant.id, value)
