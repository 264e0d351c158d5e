"""All SQL about sessions, runs and events. Values go in and out as JSON text, so that they stay the same to the byte."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from hansa.auth.idempotency import IdempotencyKey
from hansa.auth.model import Principal
from hansa.db.pool import Connection, Database
from hansa.runs.model import Claim, Loaded, RunContextData, RunView, Write, canonical

EVENT = "json_build_object('seq', seq, 'session_id', session_id, 'run_id', run_id, 'type', type, 'step', step, 'data', data, 'at', at)"
SESSION = "json_build_object('id', id, 'agent', agent, 'created_at', created_at, 'last_seq', last_seq, 'active_run', active_run)"


class NewRun(msgspec.Struct, frozen=True):
    """A run to be accepted. `session_id` None: a new session `new_session_id`; `agent` None: the session's agent."""

    id: UUID
    agent: str | None
    revision: int | None
    session_id: UUID | None
    new_session_id: UUID
    input: str


async def start(
    database: Database, principal: Principal, region: str, *, new: NewRun, key: IdempotencyKey | None
) -> tuple[str, str | None]:
    """Accept a run in one round trip: (outcome, answer as JSON text); the outcomes are in the SQL function."""
    row = await database.call_row(
        "SELECT outcome, answer FROM hansa.run_start($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        principal.tenant_id,
        principal.name,
        key.route if key else None,
        key.key if key else None,
        key.digest if key else None,
        region,
        new.agent,
        new.revision,
        new.session_id,
        new.new_session_id,
        new.id,
        new.input,
    )
    return ("", None) if row is None else (row["outcome"], row["answer"])


async def claim(database: Database, worker: str, limit: int, *, lease: float) -> list[Claim]:
    """Take up to `limit` runs for `lease` seconds."""
    rows = await database.system("SELECT tenant_id, id, epoch FROM hansa.run_claim($1, $2, $3)", worker, limit, timedelta(seconds=lease))
    return [Claim(*row) for row in rows]


async def renew(database: Database, claims: list[Claim], *, lease: float) -> dict[UUID, bool]:
    """Prolong leases: run -> whether it shall be canceled; runs that are missing are lost."""
    rows = await database.system("SELECT id, cancel FROM hansa.run_renew($1, $2, $3, $4)", *_columns(claims), timedelta(seconds=lease))
    return {row["id"]: row["cancel"] for row in rows}


async def release(database: Database, claims: list[Claim]) -> None:
    """Hand runs back at once."""
    await database.system("SELECT hansa.run_release($1, $2, $3)", *_columns(claims))


def _columns(claims: list[Claim]) -> tuple[list[UUID], list[UUID], list[int]]:
    return [claim.tenant_id for claim in claims], [claim.id for claim in claims], [claim.epoch for claim in claims]


async def load(database: Database, claim: Claim, worker: str) -> Loaded | None:
    """Everything needed to drive a claimed run; None: fenced."""
    text = await database.call("SELECT hansa.run_load($1, $2, $3, $4)", claim.tenant_id, claim.id, claim.epoch, worker)
    return None if text is None else msgspec.json.decode(text, type=Loaded)


async def append(database: Database, claim: Claim, write: Write, *, lease: float) -> int | None:
    """Write events, usage and perhaps the end. The log's last number, or None: fenced."""
    end = write.end
    return await database.call(
        "SELECT hansa.run_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        claim.tenant_id,
        claim.id,
        claim.epoch,
        write.number,
        timedelta(seconds=lease),
        [entry.type.value for entry in write.entries],
        [entry.step for entry in write.entries],
        [canonical(entry.data).decode() for entry in write.entries],
        write.usage.input_tokens,
        write.usage.output_tokens,
        end.state if end else None,
        canonical(end.output).decode() if end and end.state == "completed" else None,
        canonical(end.error).decode() if end and end.error else None,
    )


async def cancel(connection: Connection, tenant_id: UUID, run_id: UUID) -> str | None:
    """Cancel or ask for it; the run as JSON text, None: no such run."""
    return await connection.fetchval("SELECT hansa.run_cancel($1, $2)", tenant_id, run_id)


async def find_run(connection: Connection, run_id: UUID) -> str | None:
    """A run as JSON text."""
    return await connection.fetchval(
        "SELECT hansa.run_json(r) FROM hansa.runs r WHERE tenant_id = (SELECT hansa.tenant()) AND id = $1", run_id
    )


async def find_context(connection: Connection, run_id: UUID) -> tuple[RunView, RunContextData] | None:
    """What replay needs of a run."""
    row = await connection.fetchrow(
        "SELECT hansa.run_json(r) AS run, hansa.run_context(r.tenant_id, r) AS context FROM hansa.runs r "
        "WHERE tenant_id = (SELECT hansa.tenant()) AND id = $1",
        run_id,
    )
    if row is None:
        return None
    return msgspec.json.decode(row["run"], type=RunView), msgspec.json.decode(row["context"], type=RunContextData)


async def list_runs(connection: Connection, filters: dict[str, Any], before: UUID | None, limit: int) -> list[asyncpg.Record]:
    """Runs, newest first: records (id, body as JSON text). `filters`: agent, state, session_id or None each."""
    return await connection.fetch(
        "SELECT r.id, hansa.run_json(r) AS body FROM hansa.runs r WHERE tenant_id = (SELECT hansa.tenant()) "
        "AND ($1::text IS NULL OR agent = $1) AND ($2::text IS NULL OR state = $2) AND ($3::uuid IS NULL OR session_id = $3) "
        "AND ($4::uuid IS NULL OR id < $4) ORDER BY id DESC LIMIT $5",
        filters.get("agent"),
        filters.get("state"),
        filters.get("session_id"),
        before,
        limit,
    )


async def insert_session(connection: Connection, session_id: UUID, agent: str) -> str | None:
    """Make a session of an agent; its JSON text, None: no such agent."""
    return await connection.fetchval(
        "INSERT INTO hansa.sessions (tenant_id, id, agent) SELECT tenant_id, $1, name FROM hansa.objects "
        f"WHERE tenant_id = (SELECT hansa.tenant()) AND kind = 'Agent' AND name = $2 RETURNING {SESSION}",
        session_id,
        agent,
    )


async def find_session(connection: Connection, session_id: UUID) -> str | None:
    """A session as JSON text."""
    return await connection.fetchval(
        f"SELECT {SESSION} FROM hansa.sessions WHERE tenant_id = (SELECT hansa.tenant()) AND id = $1", session_id
    )


async def list_sessions(connection: Connection, agent: str | None, before: UUID | None, limit: int) -> list[asyncpg.Record]:
    """Sessions, newest first: records (id, body as JSON text)."""
    return await connection.fetch(
        f"SELECT id, {SESSION} AS body FROM hansa.sessions WHERE tenant_id = (SELECT hansa.tenant()) "
        "AND ($1::text IS NULL OR agent = $1) AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
        agent,
        before,
        limit,
    )


async def list_events(connection: Connection, session_id: UUID, after: int, limit: int) -> list[asyncpg.Record]:
    """Events of a session after a number, oldest first: records (seq, run_id, type, body as JSON text)."""
    return await connection.fetch(
        f"SELECT seq, run_id, type, {EVENT} AS body FROM hansa.events "
        "WHERE tenant_id = (SELECT hansa.tenant()) AND session_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        session_id,
        after,
        limit,
    )
