"""`hansa sources`: what sources of objects, such as repositories that `hansa sync` watches, last saw, and what is wrong with them."""

from cyclopts import App

from hansa.cli.client import open_api, segment
from hansa.cli.connection import Connection
from hansa.cli.output import Column, WideFlag, age, field, say, show

SHOWN = 12
"""Characters of a commit that a table shows."""

sources = App(name="sources")
_COLUMNS = (
    field("NAME", "id"),
    field("STATE", "state"),
    field("REF", "ref"),
    Column("COMMIT", lambda row: str(row.get("commit") or "-")[:SHOWN]),
    Column("ERRORS", lambda row: str(len(row["errors"]))),
    age("SEEN", "seen_at"),
    age("APPLIED", "applied_at"),
    field("ORIGIN", "origin"),
)
_WIDE = (field("MESSAGE", "message"), field("TOLD BY", "told_by"))


@sources.default
@sources.command(name="list")
def list_sources(*, connection: Connection | None = None, output: WideFlag = "table") -> None:
    """List the tenant's sources; -o yaml and json have every error with its file and line."""
    with open_api(connection or Connection()) as api:
        rows = api.entries("/v1/sources", {}, None)
        show(rows, (*_COLUMNS, *_WIDE) if output == "wide" else _COLUMNS, "table" if output == "wide" else output)


@sources.command(name="forget")
def forget(name: str, *, connection: Connection | None = None) -> None:
    """Forget a source that is no more. What it applied stays, and is still its own."""
    with open_api(connection or Connection()) as api:
        api.delete(f"/v1/sources/{segment(name)}")
    say(f"{name} is forgotten; hansa takeover moves what it applied")
