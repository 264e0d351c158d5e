"""`hansa usage` and `hansa budget`: what the tenant has used, and what it may."""

from typing import Annotated

from cyclopts import Parameter

from hansa.cli.client import open_api
from hansa.cli.connection import Connection
from hansa.cli.output import Column, OutputFlag, Row, field, moment, say, show

_COUNTS = ("calls", "input_tokens", "output_tokens", "cost", "lost_calls", "lost_tokens", "lost_cost")
_BAR, _EIGHTHS = 20, " ▏▎▍▌▋▊▉"


def usage(
    *,
    since: Annotated[str, Parameter(help="First day, in UTC, e.g. 2030-01-31; left out: the first of this month.")] = "",
    until: Annotated[str, Parameter(help="Last day; left out: today.")] = "",
    by: Annotated[str, Parameter(help="What to tell apart: any of day, agent, model, by comma.")] = "day,agent,model",
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> None:
    """Show what the tenant's models took: tokens, and money by their prices; lost calls apart."""
    query = {name: value for name, value in (("since", since), ("until", until), ("by", by)) if value}
    with open_api(connection or Connection()) as api:
        rows: list[Row] = list(api.entries("/v1/usage", query, None))
    if output != "table" or not rows:
        show(rows, (), output)
        return
    total: Row = {name: sum(row[name] for row in rows) for name in _COUNTS}
    what = "cost" if total["cost"] + total["lost_cost"] else "tokens"
    largest = max(_weight(row, what) for row in rows)
    columns = (
        *(field(name.upper(), name) for name in ("day", "agent", "model") if name in by.split(",")),
        *(_number(title, name) for title, name in (("CALLS", "calls"), ("TOKENS IN", "input_tokens"), ("TOKENS OUT", "output_tokens"))),
        Column("COST", lambda row: money(row["cost"])),
        *((_number("LOST", "lost_calls"), Column("LOST COST", lambda row: money(row["lost_cost"]))) if total["lost_calls"] else ()),
        Column(what.upper(), lambda row: bar(_weight(row, what), largest) if row is not total else ""),
    )
    show([*rows, total], columns, output)


def budget(*, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """Show the limits of the tenant, and how much of each is used."""
    with open_api(connection or Connection()) as api:
        rows = api.entries("/v1/budgets", {}, None)
    if not rows and output == "table":
        say("no limits are set: spec.quotas of the Tenant sets them")
        return
    columns = (
        field("LIMIT", "limit"),
        Column("USED", lambda row: amount(row["used"], row)),
        Column("RESERVED", lambda row: amount(row["reserved"], row)),
        Column("OF", lambda row: f"{amount(row['bound'], row)} {row['unit']}"),
        Column("", lambda row: bar(row["used"], row["bound"])),
        Column("%", lambda row: f"{row['percent']:g}"),
        field("STATE", "state"),
        field("PERIOD", "period"),
        Column("NEXT BEGINS", lambda row: f"{moment(row['resets_at']):%Y-%m-%d %H:%M} UTC" if row["resets_at"] else "-"),
        field("ON LIMIT", "on_limit"),
        field("HELD RUNS", "held_runs"),
    )
    show(rows, columns, output)


def bar(value: float, whole: float) -> str:
    """A bar of a share, at most as long as the whole."""
    eighths = round(8 * _BAR * min(1.0, value / whole)) if whole > 0 else 0
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).strip() or "·"


def amount(value: float, row: Row) -> str:
    """A number of a limit's unit."""
    return money(value) if row["limit"] == "budget" else f"{round(value):,}"


def money(value: float) -> str:
    """To the cent, or as exactly as is needed below that."""
    text = f"{value:,.6f}".rstrip("0")
    whole, _, cents = text.partition(".")
    return f"{whole}.{cents.ljust(2, '0')}"


def _number(title: str, name: str) -> Column:
    return Column(title, lambda row: f"{row[name]:,}")


def _weight(row: Row, what: str) -> float:
    if what == "cost":
        return float(row["cost"] + row["lost_cost"])
    return float(row["input_tokens"] + row["output_tokens"] + row["lost_tokens"])
