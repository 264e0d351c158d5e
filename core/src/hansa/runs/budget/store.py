"""All SQL of reservations."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from hansa.db.pool import Connection, Database
from hansa.runs.model import Ask, Claim, Grant, Told, Unsent


async def reserve(database: Database, batch: Sequence[tuple[Claim, Ask]]) -> list[Grant]:
    """Reserve what calls of models of one tenant's runs can take at most, see the SQL function."""
    asks = [{"run": claim.id, "epoch": claim.epoch, **msgspec.to_builtins(ask)} for claim, ask in batch]
    sql = "SELECT outcome, output_tokens, told FROM hansa.budget_reserve($1, $2) ORDER BY n"
    rows = await database.call_rows(sql, batch[0][0].tenant_id, msgspec.json.encode(asks).decode())
    return [
        Grant(row["outcome"], row["output_tokens"], msgspec.json.decode(row["told"], type=Told) if row["told"] else None) for row in rows
    ]


async def count_message(database: Database, tenant_id: UUID) -> Unsent | None:
    """Count a message before it is sent, for good; why it may not be sent, if so."""
    return _unsent(await database.call("SELECT hansa.message_take($1)", tenant_id))


async def count_message_here(connection: Connection, tenant_id: UUID, message_id: UUID) -> Unsent | None:
    """The same, in the caller's transaction; one that has come before under this id is not counted again."""
    return _unsent(await connection.fetchval("SELECT hansa.message_take($1, $2)", tenant_id, message_id))


def _unsent(said: str | None) -> Unsent | None:
    return None if said is None else msgspec.json.decode(said, type=Unsent)


async def hold_for_budget(database: Database, claim: Claim, told: Told) -> None:
    """Suspend a run that has nothing left to spend, unless there is more by now."""
    said = {"by": "budget", **msgspec.to_builtins(told)}
    sql = "SELECT hansa.budget_hold($1, $2, $3, $4, $5)"
    await database.call(sql, claim.tenant_id, claim.id, claim.epoch, told.version, msgspec.json.encode(said).decode())
