"""Budgets, in the model, as in definitions/budgets.sql: what is reserved, settled, held. One period that does not end, one currency."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from simulation.rows import BudgetRow, ReservationRow, UsageRow
from simulation.tables import Row, Tables, encoded

RESETS_AT = "2026-02-01T00:00:00+00:00"


class Ask(msgspec.Struct):
    """A call as budget_reserve is given it."""

    run: UUID
    epoch: int
    step: str
    agent: str
    model: str
    input_tokens: int
    output_tokens: int
    least: int
    input_price: float
    output_price: float
    currency: str | None
    lost_tokens: int
    lost_cost: int
    last: bool


class Spend(msgspec.Struct):
    """What a step's calls have cost, as run_write is given it."""

    run: UUID
    step: str
    agent: str
    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost: int
    lost_calls: int
    lost_tokens: int
    lost_cost: int


ASKS = msgspec.json.Decoder(list[Ask])
COUNTS = ("calls", "input_tokens", "output_tokens", "cost", "lost_calls", "lost_tokens", "lost_cost")


class Money(Tables):
    """The verbs of money."""

    @property
    def metered(self) -> bool:
        return self.budget is not None and (self.budget.amount is not None or self.budget.tokens_per_day is not None)

    def budget_set(self, *arguments: Any) -> None:
        """Arguments: tenant, amount, currency, period, on_limit, charges_lost, warn_at, tokens."""
        amount, on_limit, charges, tokens = arguments[1], arguments[4], arguments[5], arguments[7]
        old = self.budget
        if old is None and amount is None and tokens is None:
            return
        if old is not None and (old.amount, old.on_limit, old.charges_lost, old.tokens_per_day) == (amount, on_limit, charges, tokens):
            return
        self.seen["a budget is changed" if old is not None else "a budget is set"] += 1
        if amount is None and tokens is None:
            self.reservations.clear()
        budget = self.budget = BudgetRow(amount, on_limit, charges, tokens, version=0 if old is None else old.version + 1)
        for used in self.usage.values():
            budget.spent += used.cost + used.lost_cost
            budget.tokens += used.input_tokens + used.output_tokens + used.lost_tokens
        budget.reserved = sum(each.cost for each in self.reservations.values())
        budget.tokens_reserved = sum(each.tokens for each in self.reservations.values())
        for wait in self.waits.values():
            if wait.kind == "budget" and self.runs[wait.run_id].state == "suspended":
                wait.look_at = self.now()

    def budget_refusal(self) -> str | None:
        budget = self.budget
        if budget is None or budget.on_limit != "reject":
            return None
        if budget.amount is not None and budget.spent >= budget.amount:
            return encoded({"limit": "budget", "used": budget.spent, "bound": budget.amount, "resets_at": RESETS_AT})
        if budget.tokens_per_day is not None and budget.tokens >= budget.tokens_per_day:
            return encoded({"limit": "tokensPerDay", "used": budget.tokens, "bound": budget.tokens_per_day, "resets_at": RESETS_AT})
        return None

    def message_take(self, _: Any) -> None:
        """Messages have no bound here."""

    def budget_reserve(self, tenant: Any, asks: str) -> list[Row]:
        found, lapsed = ASKS.decode(asks), False
        asking, rows = {ask.run for ask in found}, list[Row]()
        for n, ask in enumerate(found, 1):
            row, lapsed = self._reserve(ask, asking, lapsed=lapsed)
            self.seen[f"a call is {row['outcome']}"] += 1
            rows.append({"n": n, "output_tokens": ask.output_tokens, "told": None, **row})
        return rows

    def _reserve(self, ask: Ask, asking: set[UUID], *, lapsed: bool) -> tuple[Row, bool]:
        if not self.owned(ask.run, ask.epoch):
            return {"outcome": "fenced"}, lapsed
        budget = self.budget
        if budget is None or not self.metered:
            return {"outcome": "granted"}, lapsed
        if not budget.charges_lost:
            ask.lost_tokens = ask.lost_cost = 0
        mine = self.reservations.get((ask.run, ask.step)) or ReservationRow(ask.run, ask.step, 0, "", "", 0, 0)
        limit = self._limit(budget, ask, mine)
        if limit is not None and not lapsed:
            self._lapse(asking)
            limit, lapsed = self._limit(budget, ask, mine), True
        output, cost = ask.output_tokens, _cost(ask, ask.output_tokens)
        if limit is not None:
            others = budget.reserved > mine.cost if limit == "budget" else budget.tokens_reserved > mine.tokens
            told = encoded({"limit": limit, "on_limit": budget.on_limit, "version": budget.version, "resets_at": RESETS_AT})
            if others and not ask.last:
                return {"outcome": "wait", "told": told}, lapsed
            room, tokens_room = self._rooms(budget, ask, mine)
            if cost > 0 and cost > room:
                output = math.floor((room - ask.input_tokens * ask.input_price) / ask.output_price) if ask.output_price > 0 else 0
            output = int(min(output, tokens_room - ask.input_tokens))
            cost = _cost(ask, output)
            if output < ask.least or (cost > 0 and cost > room):
                return {"outcome": "refused", "told": told}, lapsed
            self.seen["an answer is cut to what is left"] += 1
        tokens = ask.input_tokens + output + ask.lost_tokens
        kept = ReservationRow(ask.run, ask.step, ask.epoch, ask.agent, ask.model, cost + ask.lost_cost, tokens)
        self.reservations[ask.run, ask.step] = kept
        if self.broken != "noreserve":
            budget.reserved += kept.cost - mine.cost
            budget.tokens_reserved += kept.tokens - mine.tokens
        return {"outcome": "granted", "output_tokens": output}, lapsed

    def _rooms(self, budget: BudgetRow, ask: Ask, mine: ReservationRow) -> tuple[float, float]:
        room = math.inf if budget.amount is None else budget.amount - budget.spent - budget.reserved + mine.cost - ask.lost_cost
        if budget.tokens_per_day is None:
            return room, math.inf
        return room, budget.tokens_per_day - budget.tokens - budget.tokens_reserved + mine.tokens - ask.lost_tokens

    def _limit(self, budget: BudgetRow, ask: Ask, mine: ReservationRow) -> str | None:
        (room, tokens_room), cost = self._rooms(budget, ask, mine), _cost(ask, ask.output_tokens)
        if cost > 0 and cost > room:
            return "budget"
        return "tokensPerDay" if ask.input_tokens + ask.output_tokens > tokens_room else None

    def _lapse(self, asking: set[UUID]) -> None:
        """What is reserved for runs that are not driven any more as they were then."""
        reserved = {each.run_id: self.runs[each.run_id] for each in self.reservations.values()}
        for run in reserved.values():
            if run.state == "running" and run.lease_until < self.now() and run.id not in asking:
                self.seen["who holds a lease that is over is fenced for its reservation"] += 1
                run.epoch += 1
        left = {run.id: run.epoch if run.state == "running" else run.epoch + 1 for run in reserved.values()}
        stale = {each.run_id for each in self.reservations.values() if each.epoch < left[each.run_id]}
        if stale:
            self.usage_settle((), {run: before for run, before in left.items() if run in stale})

    def usage_settle(self, spends: Sequence[Spend], left: Mapping[UUID, int]) -> None:
        budget = self.budget if self.metered else None
        said = {(spend.run, spend.step) for spend in spends}
        over = [each for key, each in self.reservations.items() if key in said or each.epoch < left.get(each.run_id, 0)] if budget else []
        lost = [each for each in over if (each.run_id, each.step) not in said]
        self.seen["a call is lost"] += len(lost)
        for each in over:
            del self.reservations[each.run_id, each.step]
        items: list[Spend | UsageRow] = [*spends]
        items += [UsageRow(each.agent, each.model, lost_calls=1, lost_tokens=each.tokens, lost_cost=each.cost) for each in lost]
        charges = budget is not None and budget.charges_lost
        cost = tokens = 0
        for item in items:
            used = self.usage.setdefault((item.agent, item.model), UsageRow(item.agent, item.model))
            counts = {name: getattr(item, name) for name in COUNTS}
            counts |= {} if charges else {"lost_tokens": 0, "lost_cost": 0}
            for name, count in counts.items():
                setattr(used, name, getattr(used, name) + count)
            cost += counts["cost"] + counts["lost_cost"]
            tokens += counts["input_tokens"] + counts["output_tokens"] + counts["lost_tokens"]
        if budget is not None:
            budget.spent, budget.tokens = budget.spent + cost, budget.tokens + tokens
            if budget.amount is not None and budget.spent > budget.amount:
                self.overdrawn.append(f"over: {budget.spent} of {budget.amount} was spent at {self.now()}")
            if self.broken != "noreserve":
                budget.reserved -= sum(each.cost for each in over)
                budget.tokens_reserved -= sum(each.tokens for each in over)

    def usage_written(self, spends: Sequence[Spend], done: Iterable[tuple[UUID, int]]) -> None:
        """What a batch of writes has cost."""
        reserved = {each.run_id for each in self.reservations.values()}
        left = {run: epoch + 1 for run, epoch in done if run in reserved and self.runs[run].state != "running"}
        if self.broken == "ghost":
            left = {}
        if spends or left:
            self.usage_settle(spends, left if self.metered else {})

    def owned(self, run: UUID, epoch: int) -> bool:
        found = self.runs.get(run)
        return found is not None and found.epoch == epoch and found.state == "running"


def _cost(ask: Ask, output: int) -> int:
    return math.ceil(ask.input_tokens * ask.input_price + output * ask.output_price)
