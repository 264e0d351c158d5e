"""All SQL about sessions, runs and events. Values go in and out as JSON text, so that they stay the same to the byte."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from hansa.auth.idempotency import IdempotencyKey
from hansa.auth.model import Principal, Starter
from hansa.db.pool import Connection, Database
from hansa.runs.model import Claim, EventType, Loaded, Past, Recorded, RunView, Write, Written, canonical
from hansa.runs.values import Columns

SESSION = """json_build_object('id', a.id, 'agent', a.agent, 'namespace', a.namespace, 'revision', a.revision, 'smoke', a.smoke,
  'created_at', a.created_at, 'last_seq', a.last_seq, 'active_run', a.active_run)"""
Places = Collection[str] | None
"""Namespaces of whose sessions alone something is told; None: of all."""

APPROVAL = """json_build_object('id', a.id, 'run_id', a.run_id, 'step', a.step, 'kind', a.kind, 'subject', a.subject, 'state', a.state,
  'decided_by', a.decided_by, 'comment', a.comment, 'answer', a.answer, 'requested_at', a.requested_at, 'expires_at', a.expires_at,
  'decided_at', a.decided_at)"""
RESULTS = [type_.value for type_ in (EventType.RUN_RETURNED, EventType.APPROVAL_DECIDED, EventType.TIMER_FIRED, EventType.EVENT_RECEIVED)]
"""Events that end a wait."""


class NewRun(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run to be accepted. `session_id` None: a new session `new_session_id`; `agent` None: the session's agent; `within`: the
    namespaces in which it may be, None: all."""

    id: UUID
    new_session_id: UUID
    agent: str | None = None
    revision: int | None = None
    session_id: UUID | None = None
    priority: int = 0
    start_at: str | None = None
    parent_run: UUID | None = None
    parent_step: str | None = None
    depth: int = 0
    started_by: Starter | None = None
    within: tuple[str, ...] | None = None


class Accept(msgspec.Struct, frozen=True):
    """One run to be accepted, for whom, and under which idempotency key. `input` is JSON text."""

    principal: Principal
    new: NewRun
    input: str
    key: IdempotencyKey | None


class Due(msgspec.Struct, frozen=True):
    """A wait whose time has come."""

    tenant_id: UUID
    run_id: UUID
    step: str


class Turn(msgspec.Struct, frozen=True):
    """Whose turn it is in a pool, and how many runs are left of it; a worker keeps this between claims."""

    tenant_id: UUID = UUID(int=0)
    credit: int = 0


START = "SELECT outcome, answer FROM hansa.run_start($1, $2, $3, $4, $5, $6, $7, $8)"
START_MANY = "SELECT outcome, answer FROM hansa.run_start_many($1, $2, $3, $4, $5, $6, $7, $8) ORDER BY n"


async def start(database: Database, region: str, accept: Accept) -> tuple[str, str | None]:
    """Accept a run in one round trip: (outcome, answer as JSON text); the outcomes are in the SQL function."""
    row = await database.of(accept.principal.tenant_id).call_row(START, *_accepted(region, accept))
    return ("", None) if row is None else (row["outcome"], row["answer"])


async def start_here(connection: Connection, region: str, accept: Accept) -> tuple[str, str | None]:
    """The same, in the caller's transaction."""
    row = await connection.fetchrow(START, *_accepted(region, accept))
    return ("", None) if row is None else (row["outcome"], row["answer"])


def _accepted(region: str, accept: Accept) -> tuple[Any, ...]:
    key = accept.key
    return (
        accept.principal.tenant_id,
        accept.principal.name,
        key.route if key else None,
        key.key if key else None,
        key.digest if key else None,
        region,
        msgspec.json.encode(accept.new).decode(),
        accept.input,
    )


async def start_many(database: Database, region: str, accepts: Sequence[Accept]) -> list[tuple[str, str | None]]:
    """Accept runs of one tenant, each in a session of its own, in one transaction."""
    keys = [accept.key for accept in accepts]
    rows = await database.of(accepts[0].principal.tenant_id).call_rows(
        START_MANY,
        accepts[0].principal.tenant_id,
        region,
        [accept.principal.name for accept in accepts],
        [key.route if key else None for key in keys],
        [key.key if key else None for key in keys],
        [key.digest if key else None for key in keys],
        [msgspec.json.encode(accept.new).decode() for accept in accepts],
        [accept.input for accept in accepts],
    )
    return [(row["outcome"], row["answer"]) for row in rows]


async def claim(database: Database, worker: str, limit: int, *, pool: str, turn: Turn, lease: float) -> tuple[list[Claim], Turn]:
    """Take up to `limit` runs of a pool of this database for `lease` seconds; and whose turn it is next."""
    sql = "SELECT tenant_id, id, session_id, epoch, turn, credit FROM hansa.run_claim($1, $2, $3, $4, $5, $6)"
    rows = await database.system(sql, worker, limit, timedelta(seconds=lease), pool, turn.tenant_id, turn.credit)
    claims = [Claim(row["tenant_id"], row["id"], row["session_id"], row["epoch"]) for row in rows[:-1]]
    return claims, Turn(rows[-1]["turn"], rows[-1]["credit"])


async def renew(database: Database, claims: list[Claim], *, lease: float) -> dict[UUID, str | None]:
    """Prolong leases: run -> what is wanted of it (cancel, suspend, None); runs that are missing are lost."""
    rows = await database.system("SELECT id, wish FROM hansa.run_renew($1, $2, $3, $4)", *_columns(claims), timedelta(seconds=lease))
    return {row["id"]: row["wish"] for row in rows}


async def release(database: Database, claims: list[Claim], *, pause: float = 0.0) -> None:
    """Hand runs back, to be claimed again after so many seconds."""
    await database.system("SELECT hansa.run_release($1, $2, $3, $4)", *_columns(claims), timedelta(seconds=pause))


def _columns(claims: list[Claim]) -> tuple[list[UUID], list[UUID], list[int]]:
    return [claim.tenant_id for claim in claims], [claim.id for claim in claims], [claim.epoch for claim in claims]


async def load(database: Database, tenant_id: UUID, claims: Sequence[Claim]) -> dict[UUID, Loaded]:
    """Everything needed to drive claimed runs of one tenant; those missing are fenced."""
    rows = await database.of(tenant_id).call_rows(
        "SELECT * FROM hansa.run_load($1, $2, $3)", tenant_id, [claim.id for claim in claims], [claim.epoch for claim in claims]
    )
    sessions = {claim.id: claim.session_id for claim in claims}
    return {row["run"]: _loaded(row, sessions[row["run"]]) for row in rows}


def _loaded(row: asyncpg.Record, session_id: UUID) -> Loaded:
    return Loaded(
        run=RunView(row["run"], session_id, row["agent"], row["revision"], "running", msgspec.json.decode(row["input"])),
        takeovers=row["takeovers"],
        attempt=row["attempt"],
        depth=row["depth"],
        wish=row["wish"],
        active=row["active"],
        world=row["world"],
        history=msgspec.json.decode(row["history"], type=list[tuple[Any, Any]]) if row["history"] else [],
        steps=msgspec.json.decode(row["steps"], type=list[Recorded]) if row["steps"] else [],
        metered=row["metered"],
        started_by=msgspec.json.decode(row["started_by"], type=Starter) if row["started_by"] else None,
    )


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """A write as the SQL function run_write reads it. What runs bring stands there as JSON text."""

    session: UUID
    run: UUID
    epoch: int
    number: int
    input_tokens: int
    output_tokens: int
    entries: list[dict[str, str | None]]
    waits: list[str] = []
    state: str | None = None
    output: str | None = None
    error: str | None = None
    spends: list[dict[str, Any]] | None = None


def _row(claim: Claim, write: Write) -> Row:
    usage, end = write.usage, write.end
    entries: list[dict[str, str | None]] = [
        {"type": entry.type, "step": entry.step, "data": bytes(entry.data).decode()} for entry in write.entries
    ]
    waits = [msgspec.json.encode(wait).decode() for wait in write.waits]
    row = Row(claim.session_id, claim.id, claim.epoch, write.number, usage.input_tokens, usage.output_tokens, entries, waits)
    if write.spends:
        row = msgspec.structs.replace(row, spends=[{"run": claim.id, **msgspec.to_builtins(spend)} for spend in write.spends])
    if end is None:
        return row
    output = canonical(end.output).decode() if end.state == "completed" else None
    return msgspec.structs.replace(row, state=end.state, output=output, error=canonical(end.error).decode() if end.error else None)


async def write(database: Database, batch: Sequence[tuple[Claim, Write]], values: Columns) -> dict[UUID, Written]:
    """Make writes of runs of one tenant, each run once, with the values that they refer to; those missing are fenced."""
    rows = await database.of(batch[0][0].tenant_id).call_rows(
        "SELECT run, seq, state, metered FROM hansa.run_write($1, $2, $3, $4, $5)",
        batch[0][0].tenant_id,
        msgspec.json.encode([_row(claim, write) for claim, write in batch]).decode(),
        values.digests,
        values.sizes,
        values.bodies,
    )
    return {row["run"]: Written(row["seq"], row["state"], row["metered"]) for row in rows}


async def results(database: Database, claim: Claim, steps: Sequence[str]) -> list[Recorded]:
    """What has come of waits at some steps of a run."""
    async with database.tenant(claim.tenant_id) as connection:
        rows = await connection.fetch(
            "SELECT type, step, data FROM hansa.events WHERE tenant_id = (SELECT hansa.tenant()) AND session_id = $1 AND run_id = $2 "
            "AND step = ANY($3) AND type = ANY($4)",
            claim.session_id,
            claim.id,
            steps,
            RESULTS,
        )
    return [Recorded(EventType(row["type"]), row["step"], msgspec.json.decode(row["data"])) for row in rows]


async def hold(database: Database, claim: Claim) -> None:
    """Suspend a run that its worker has let go of, if that is still wanted."""
    await database.of(claim.tenant_id).call("SELECT hansa.run_hold($1, $2, $3)", claim.tenant_id, claim.id, claim.epoch)


async def due(database: Database, limit: int, *, again: float) -> tuple[list[Due], float | None]:
    """Waits whose time has come, looked at again after `again` seconds; and the seconds until the next one."""
    rows = await database.system("SELECT tenant_id, run_id, step, next FROM hansa.waits_due($1, $2)", limit, timedelta(seconds=again))
    return [Due(row["tenant_id"], row["run_id"], row["step"]) for row in rows[:-1]], rows[-1]["next"]


async def expire(database: Database, wait: Due) -> str:
    """Settle a wait whose time has come: what became of its run, see hansa.wait_resolve."""
    return await database.of(wait.tenant_id).call("SELECT hansa.wait_expire($1, $2, $3)", wait.tenant_id, wait.run_id, wait.step)


async def cancel(connection: Connection, tenant_id: UUID, run_id: UUID) -> str | None:
    """Cancel or ask for it; the run as JSON text, None: no such run."""
    return await connection.fetchval("SELECT hansa.run_cancel($1, $2)", tenant_id, run_id)


async def suspend(connection: Connection, tenant_id: UUID, run_id: UUID) -> str | None:
    """Hold a run or ask for it; the run as JSON text, None: no such run."""
    return await connection.fetchval("SELECT hansa.run_suspend($1, $2)", tenant_id, run_id)


async def resume(
    connection: Connection, principal: Principal, run_id: UUID, *, decision: str | None, answer: str
) -> tuple[str, str | None]:
    """(outcome, run as JSON text); the outcomes are in the SQL function."""
    row = await connection.fetchrow(
        "SELECT outcome, answer FROM hansa.run_resume($1, $2, $3, $4, $5)", principal.tenant_id, run_id, decision, answer, principal.name
    )
    return ("", None) if row is None else (row["outcome"], row["answer"])


async def fork(
    connection: Connection, principal: Principal, run_id: UUID, *, region: str, at: int, new: tuple[UUID, UUID]
) -> tuple[str, str | None]:
    """(outcome, answer as JSON text). `new`: the ids of the new run and its session."""
    starter = msgspec.json.encode(principal.starter).decode()
    sql = "SELECT outcome, answer FROM hansa.run_fork($1, $2, $3, $4, $5, $6, $7)"
    row = await connection.fetchrow(sql, principal.tenant_id, region, run_id, at, *new, starter)
    return ("", None) if row is None else (row["outcome"], row["answer"])


async def send_event(
    connection: Connection, tenant_id: UUID, session_id: UUID, event_id: UUID, *, name: str, data: str
) -> tuple[str, UUID | None]:
    """(outcome, the run that has it now)."""
    row = await connection.fetchrow(
        "SELECT outcome, run FROM hansa.event_send($1, $2, $3, $4, $5)", tenant_id, session_id, event_id, name, data
    )
    return ("", None) if row is None else (row["outcome"], row["run"])


async def resolve(connection: Connection, tenant_id: UUID, run_id: UUID, *, step: str, data: dict[str, Any]) -> str:
    """A called agent has returned: what became of its caller, see hansa.wait_resolve."""
    sql = "SELECT hansa.run_returned($1, $2, $3, $4)"
    return await connection.fetchval(sql, tenant_id, run_id, step, canonical(data).decode())


async def publish(connection: Connection, tenant_id: UUID, name: str, data: str, *, within: Places) -> list[tuple[str, UUID]]:
    """Give an event to every run that waits for one of its name: (what became of it, run) each."""
    rows = await connection.fetch("SELECT outcome, run FROM hansa.event_publish($1, $2, $3, $4)", tenant_id, name, data, within)
    return [(row["outcome"], row["run"]) for row in rows]


async def find_run(connection: Connection, run_id: UUID) -> str | None:
    """A run as JSON text."""
    return await connection.fetchval(
        "SELECT hansa.run_json(r) FROM hansa.runs r WHERE tenant_id = (SELECT hansa.tenant()) AND id = $1", run_id
    )


async def find_past(connection: Connection, run_id: UUID) -> tuple[RunView, Past] | None:
    """What replay needs of a run."""
    row = await connection.fetchrow(
        "SELECT hansa.run_json(r) AS run, json_build_object('history', hansa.run_history(r.tenant_id, r), "
        "'steps', hansa.run_steps(r.tenant_id, r)) AS past FROM hansa.runs r WHERE tenant_id = (SELECT hansa.tenant()) AND id = $1",
        run_id,
    )
    if row is None:
        return None
    return msgspec.json.decode(row["run"], type=RunView), msgspec.json.decode(row["past"], type=Past)


async def find_approval(connection: Connection, approval_id: UUID) -> str | None:
    """An approval as JSON text."""
    return await connection.fetchval(
        f"SELECT {APPROVAL} FROM hansa.approvals a WHERE tenant_id = (SELECT hansa.tenant()) AND id = $1", approval_id
    )


async def settle_approval(
    connection: Connection, principal: Principal, approval_id: UUID, *, state: str, comment: str | None, answer: str
) -> str:
    """Decide: what became of the run, see hansa.wait_resolve; or `gone`, or `conflict.<state>`."""
    return await connection.fetchval(
        "SELECT hansa.approval_settle($1, $2, $3, $4, $5, $6)",
        principal.tenant_id,
        approval_id,
        state,
        principal.name,
        comment,
        answer,
    )


async def insert_session(connection: Connection, session_id: UUID, agent: str) -> tuple[str, str | None]:
    """Make a session of an agent, on the revision that serves: (outcome, its JSON text or what `refusal` wants to know)."""
    body = await connection.fetchval(
        "INSERT INTO hansa.sessions AS a (tenant_id, id, agent, revision, namespace) "
        "SELECT tenant_id, $1, name, revision, namespace FROM hansa.agents "
        f"WHERE tenant_id = (SELECT hansa.tenant()) AND name = $2 AND revision > 0 RETURNING {SESSION}",
        session_id,
        agent,
    )
    if body is not None:
        return "opened", body
    known = "SELECT hansa.rollout_json(tenant_id, name, NULL) FROM hansa.agents WHERE tenant_id = (SELECT hansa.tenant()) AND name = $1"
    detail = await connection.fetchval(known, agent)
    return ("no_agent", None) if detail is None else ("not_served", detail)


async def find_session(connection: Connection, session_id: UUID) -> str | None:
    """A session as JSON text."""
    return await connection.fetchval(
        f"SELECT {SESSION} FROM hansa.sessions a WHERE tenant_id = (SELECT hansa.tenant()) AND id = $1", session_id
    )


async def list_events(database: Database, tenant_id: UUID, session_id: UUID, *, after: int, limit: int) -> list[asyncpg.Record]:
    """Events of a session after a number, oldest first: records (seq, run_id, type, body as JSON text)."""
    return await database.of(tenant_id).call_rows("SELECT * FROM hansa.session_events($1, $2, $3, $4)", tenant_id, session_id, after, limit)
