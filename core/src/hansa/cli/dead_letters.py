"""`hansa dead-letters`: messages that nobody could receive, and sending them again."""

from typing import Annotated

from cyclopts import App, Parameter, validators

from hansa.cli.client import open_api, segment
from hansa.cli.connection import Connection
from hansa.cli.output import Column, OutputFlag, age, field, plain, say, short, show, show_value

_COLUMNS = (
    field("ID", "id"),
    field("KIND", "kind"),
    field("KEY", "key"),
    field("ATTEMPTS", "attempts"),
    age("AGE", "buried_at"),
    Column("REASON", lambda row: short(plain(row.get("reason")), 80)),
)

dead_letters = App(name="dead-letters")


@dead_letters.default
@dead_letters.command(name="list")
def list_dead_letters(
    *,
    limit: Annotated[int, Parameter(help="How many at most, the newest first.", validator=validators.Number(gte=1))] = 50,
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> None:
    """List messages that could not be received, the newest first; `show` and `retry` take the id of one."""
    with open_api(connection or Connection()) as api:
        show(api.entries("/v1/dead-letters", {}, limit), _COLUMNS, output)


@dead_letters.command(name="show")
def show_dead_letter(message_id: str, *, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """Show everything about one message, also what it says."""
    with open_api(connection or Connection()) as api:
        show_value(api.get(f"/v1/dead-letters/{segment(message_id)}"), output)


@dead_letters.command(name="retry")
def retry_dead_letter(message_id: str, *, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """Send a message again; if it fails again it comes back to this list."""
    with open_api(connection or Connection()) as api:
        letter = api.post(f"/v1/dead-letters/{segment(message_id)}/retry", {})
        if output != "table":
            show_value(letter, output)
        else:
            say(f"message {letter['id']} ({letter['kind']}): sent again")
