"""All SQL about kept values and about what retention removes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from hansa.db.pool import Connection, Database
from hansa.runs.log.archive import RunLine, SessionLine
from hansa.runs.model import canonical
from hansa.runs.values import Columns

SNAPSHOT = """
SELECT json_build_object(
  'id', s.id, 'agent', s.agent, 'created_at', s.created_at, 'last_seq', s.last_seq,
  'forked_from', s.forked_from, 'forked_seq', s.forked_seq, 'revision', s.revision, 'smoke', s.smoke,
  'namespace', s.namespace,
  'runs', coalesce((SELECT json_agg(json_build_object(
      'id', r.id, 'queued_seq', r.queued_seq, 'revision', r.revision, 'state', r.state, 'input', r.input, 'output', r.output,
      'error', r.error, 'input_tokens', r.input_tokens, 'output_tokens', r.output_tokens,
      'created_at', r.created_at, 'started_at', r.started_at,
      'finished_at', r.finished_at, 'interrupted', r.interrupted, 'rolled_back', r.rolled_back, 'started_by', r.started_by)
      ORDER BY r.queued_seq)
    FROM hansa.runs r WHERE r.tenant_id = s.tenant_id AND r.session_id = s.id), '[]'),
  'revisions', coalesce((SELECT json_agg(json_build_object('revision', a.revision, 'manifest', a.manifest) ORDER BY a.revision)
    FROM hansa.agent_revisions a WHERE a.tenant_id = s.tenant_id AND a.agent = s.agent AND a.revision IN (
      SELECT r.revision FROM hansa.runs r WHERE r.tenant_id = s.tenant_id AND r.session_id = s.id UNION SELECT s.revision)), '[]'))
FROM hansa.sessions s WHERE s.tenant_id = (SELECT hansa.tenant()) AND s.id = $1
"""


class ValueRow(msgspec.Struct, frozen=True):
    """A kept value; `body` None: it is in the artifact store."""

    digest: bytes
    body: str | None


async def session_exists(connection: Connection, session_id: UUID) -> bool:
    """Whether the connection's tenant has this session."""
    sql = "SELECT EXISTS (SELECT FROM hansa.sessions WHERE tenant_id = (SELECT hansa.tenant()) AND id = $1)"
    return await connection.fetchval(sql, session_id)


async def put_values(connection: Connection, tenant_id: UUID, columns: Columns) -> list[bytes]:
    """Keep values; the digests that the artifact store must have."""
    return await connection.fetchval("SELECT hansa.values_put($1, $2, $3, $4)", tenant_id, columns.digests, columns.sizes, columns.bodies)


async def keep_values(connection: Connection, tenant_id: UUID, columns: Columns) -> tuple[str | None, list[bytes]]:
    """Keep values that somebody sends: why they are too much (JSON text), or the digests that the artifact store must have."""
    sql = "SELECT refused, wanted FROM hansa.values_keep($1, $2, $3, $4)"
    rows = await connection.fetch(sql, tenant_id, columns.digests, columns.sizes, columns.bodies)
    return rows[0]["refused"], rows[0]["wanted"]


async def find_values(connection: Connection, digests: Sequence[bytes]) -> list[ValueRow]:
    """Those of the values that are there."""
    rows = await connection.fetch(
        "SELECT digest, body FROM hansa.values WHERE tenant_id = (SELECT hansa.tenant()) AND digest = ANY($1)", digests
    )
    return [ValueRow(*row) for row in rows]


async def make_partitions(database: Database, weeks: int) -> int:
    """Make the log's partitions of this week and the next; how many were missing."""
    ((made,),) = await database.system("SELECT hansa.log_partitions_make($1)", weeks)
    return made


async def remove_sessions(database: Database, before: datetime, after: UUID, limit: int) -> tuple[int, UUID | None]:
    """Look at `limit` sessions and remove the idle ones: (removed, where to go on)."""
    ((removed, last),) = await database.system("SELECT removed, last FROM hansa.retention_sessions($1, $2, $3)", before, after, limit)
    return removed, last


async def drop_partition(database: Database, before: datetime) -> bool:
    """Drop one partition of the log that no session needs; whether there was one."""
    ((dropped,),) = await database.system("SELECT hansa.retention_partition($1)", before)
    return dropped


async def remove_events(database: Database, limit: int) -> int:
    """Remove events of removed sessions, `limit` at most; 0: none is left."""
    ((removed,),) = await database.system("SELECT hansa.retention_events($1)", limit)
    return removed


async def remove_values(
    connection: Connection, after: tuple[UUID, bytes], limit: int
) -> tuple[list[tuple[UUID, bytes]], tuple[UUID, bytes] | None]:
    """Look at `limit` values and remove those that nobody refers to: (what the artifact store must delete, where to go on)."""
    rows = await connection.fetch("SELECT tenant_id, digest, in_store FROM hansa.retention_values($1, $2, $3)", *after, limit)
    gone = [(row["tenant_id"], row["digest"]) for row in rows if row["in_store"]]
    last = [(row["tenant_id"], row["digest"]) for row in rows if row["in_store"] is None]
    return gone, last[0] if last else None


class EventRow(NamedTuple):
    """An event to be written as it was; `data` is JSON text."""

    seq: int
    run_id: UUID
    type: str
    step: str | None
    data: str
    at: datetime


class KnownRevision(msgspec.Struct, frozen=True):
    """Whether an agent is here, and its manifest in a revision as JSON text, if it has that."""

    agent: bool
    manifest: str | None


async def session_snapshot(connection: Connection, session_id: UUID) -> str | None:
    """A session, its runs and their revisions as of one moment, as JSON text; None: no such session."""
    return await connection.fetchval(SNAPSHOT, session_id)


async def exported_events(connection: Connection, session_id: UUID, after: int, limit: int) -> list[str]:
    """Events of a session after a number, as JSON texts."""
    rows = await connection.fetch(
        "SELECT json_build_object('seq', seq, 'run_id', run_id, 'type', type, 'step', step, 'data', data, 'at', at) AS body "
        "FROM hansa.events WHERE tenant_id = (SELECT hansa.tenant()) AND session_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        session_id,
        after,
        limit,
    )
    return [row["body"] for row in rows]


async def add_session(connection: Connection, session: SessionLine, *, last_seq: int, newest_run: int) -> bool:
    """Write a session as it was; false: one with this id is there. `newest_run`: the queued_seq of its last run."""
    done = await connection.execute(
        "INSERT INTO hansa.sessions (tenant_id, id, agent, last_seq, created_at, forked_from, forked_seq, newest_run, revision, smoke, "
        "namespace) VALUES (hansa.tenant(), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
        session.id,
        session.agent,
        last_seq,
        session.created_at,
        session.forked_from,
        session.forked_seq,
        newest_run,
        session.revision,
        session.smoke,
        session.namespace,
    )
    removing = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM hansa.removed_sessions WHERE tenant_id = (SELECT hansa.tenant()) AND session_id = $1)", session.id
    )
    return done == "INSERT 0 1" and not removing


async def find_revision(connection: Connection, agent: str, revision: int) -> KnownRevision:
    """What is known here of an agent and one of its revisions."""
    row = await connection.fetchrow(
        "SELECT EXISTS (SELECT FROM hansa.objects WHERE tenant_id = (SELECT hansa.tenant()) AND kind = 'Agent' AND name = $1) AS agent, "
        "(SELECT manifest FROM hansa.agent_revisions WHERE tenant_id = (SELECT hansa.tenant()) AND agent = $1 AND revision = $2)",
        agent,
        revision,
    )
    return KnownRevision(*row) if row is not None else KnownRevision(agent=False, manifest=None)


async def add_revision(connection: Connection, agent: str, revision: int, *, digest: bytes, manifest: str) -> None:
    """Write a revision as it was."""
    await connection.execute(
        "INSERT INTO hansa.agent_revisions (tenant_id, agent, revision, digest, manifest) VALUES (hansa.tenant(), $1, $2, $3, $4)",
        agent,
        revision,
        digest,
        manifest,
    )


async def add_runs(connection: Connection, session_id: UUID, agent: str, runs: Sequence[RunLine]) -> bool:
    """Write ended runs as they were; false: one of them is there already."""
    await connection.executemany(
        "INSERT INTO hansa.runs (tenant_id, session_id, agent, id, queued_seq, revision, state, input, output, error, input_tokens, "
        "output_tokens, created_at, started_at, finished_at, interrupted, rolled_back, started_by) "
        "VALUES (hansa.tenant(), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) ON CONFLICT DO NOTHING",
        [(session_id, agent, *_run_row(run)) for run in runs],
    )
    count = await connection.fetchval(
        "SELECT count(*) FROM hansa.runs WHERE tenant_id = (SELECT hansa.tenant()) AND session_id = $1", session_id
    )
    return count == len(runs)


def _run_row(run: RunLine) -> tuple[Any, ...]:
    texts = [canonical(run.input).decode(), *(None if value is None else canonical(value).decode() for value in (run.output, run.error))]
    times = (run.created_at, run.started_at, run.finished_at)
    return (
        run.id,
        run.queued_seq,
        run.revision,
        run.state,
        *texts,
        run.input_tokens,
        run.output_tokens,
        *times,
        run.interrupted,
        run.rolled_back,
        None if run.started_by is None else canonical(run.started_by).decode(),
    )


async def add_references(connection: Connection, session_id: UUID, digests: Sequence[bytes]) -> None:
    """Keep that a session's log refers to values."""
    await connection.execute(
        "INSERT INTO hansa.value_refs (tenant_id, session_id, digest) SELECT hansa.tenant(), $1, d FROM unnest($2::bytea[]) AS d",
        session_id,
        digests,
    )


async def add_events(connection: Connection, session_id: UUID, events: Sequence[EventRow]) -> None:
    """Write events as they were."""
    await connection.executemany(
        "INSERT INTO hansa.events (tenant_id, session_id, seq, run_id, type, step, data, at) "
        "VALUES (hansa.tenant(), $1, $2, $3, $4, $5, $6, $7)",
        [(session_id, *event) for event in events],
    )
