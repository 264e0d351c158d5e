"""What a tenant may use and has used, for those who look. What is spent is counted where it is spent (`hansa.runs.budget`)."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any

import msgspec

from hansa.auth.model import Principal
from hansa.db.pool import Database
from hansa.errors import Invalid
from hansa.tenants import store

BY = ("day", "agent", "model")
MILLION = 1_000_000


class Limit(msgspec.Struct, frozen=True):
    """A limit that is set, as a field of `quotas` is called, and its use now: in `unit`. `state`: ok, warning, or reached.

    `reserved` is held for calls that are under way. `held_runs` wait for the next period or a larger limit. `since`, `resets_at`: of
    its period, null where it has none.
    """

    limit: str
    unit: str
    used: float
    reserved: float
    bound: float
    percent: float
    state: str
    period: str | None = None
    since: date | None = None
    resets_at: datetime | None = None
    on_limit: str | None = None
    held_runs: int = 0


class Budgets:
    """Limits and usage of tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def limits(self, principal: Principal) -> list[Limit]:
        """The limits that are set for the caller's tenant."""
        async with self._database.tenant(principal.tenant_id) as connection:
            row = await store.find_limits(connection)
        return [] if row is None else list(_limits(row))

    async def usage(
        self, principal: Principal, since: date, until: date, *, by: Sequence[str], after: Sequence[str], limit: int
    ) -> tuple[list[str], list[str] | None]:
        """What was used from day to day in UTC, both included, as JSON texts, and where the next page begins. Raises `Invalid`."""
        unknown = [each for each in by if each not in BY]
        if unknown or not by:
            raise Invalid(f"by={','.join(by)[:80]!r} is not a list of {', '.join(BY)}", hint="Write for example by=agent,model.")
        if since > until:
            raise Invalid(f"since={since} is after until={until}")
        async with self._database.tenant(principal.tenant_id) as connection:
            rows = await store.page_usage(connection, since, until, by=by, after=after, limit=limit + 1)
        last = rows[limit - 1] if len(rows) > limit else None
        return [row["body"] for row in rows[:limit]], [last["day"], last["agent"], last["model"]] if last is not None else None


def _limits(row: Any) -> Iterator[Limit]:
    if row["amount"] is not None:
        spent = row["spent"] if row["same_period"] else 0
        limit = _limit("budget", row["currency"], (spent, row["reserved"], row["amount"]), warn_at=row["warn_at"], scale=MILLION)
        yield msgspec.structs.replace(
            limit,
            period=row["period"],
            since=row["since"],
            resets_at=row["period_end"],
            on_limit=row["on_limit"],
            held_runs=row["held"],
        )
    if row["tokens_per_day"] is not None:
        tokens = row["tokens"] if row["same_day"] else 0
        limit = _limit("tokensPerDay", "tokens", (tokens, row["tokens_reserved"], row["tokens_per_day"]), warn_at=row["warn_at"])
        yield msgspec.structs.replace(
            limit,
            period="day",
            since=row["day_since"],
            resets_at=row["day_end"],
            on_limit=row["on_limit"],
            held_runs=row["held"],
        )
    if row["messages_per_day"] is not None:
        limit = _limit("messagesPerDay", "messages", (row["sent"], 0, row["messages_per_day"]))
        yield msgspec.structs.replace(limit, period="day", since=row["today"], resets_at=row["tomorrow"], on_limit="reject")
    if row["concurrent_runs"] is not None:
        yield _limit("concurrentRuns", "runs", (row["running"], 0, row["concurrent_runs"]))
    if row["storage_bytes"] is not None:
        yield _limit("storageBytes", "bytes", (row["kept_bytes"], 0, row["storage_bytes"]))
    if row["most_agents"] is not None:
        yield _limit("agents", "agents", (row["agents"], 0, row["most_agents"]))


def _limit(name: str, unit: str, amounts: tuple[int, int, int], *, warn_at: int = 80, scale: int = 1) -> Limit:
    used, reserved, bound = amounts
    percent = 100.0 if bound == 0 else round(100 * used / bound, 1)
    state = "reached" if used >= bound else "warning" if 100 * used >= warn_at * bound else "ok"
    if scale == 1:
        return Limit(name, unit, used, reserved, bound, percent, state)
    return Limit(name, unit, used / scale, reserved / scale, bound / scale, percent, state)
