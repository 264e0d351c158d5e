"""All SQL about where sessions, runs, approvals and agents stand, and their lists.

Whoever may see some namespaces only is shown what of theirs is among the next `LOOKED` rows: a page of it may hold less than was asked
for, or nothing, and say where to go on. However much there is of others, no request goes through all of it.
"""

from typing import Any
from uuid import UUID

import msgspec

from hansa.db.pool import Connection
from hansa.runs.store import APPROVAL, SESSION, Places

AGENT = "SELECT namespace FROM hansa.agents WHERE tenant_id = (SELECT hansa.tenant()) AND name = $1"
PLACE = "SELECT s.namespace FROM hansa.sessions s WHERE s.tenant_id = (SELECT hansa.tenant()) AND s.id = "
PLACES = {
    "session": f"{PLACE} $1",
    "run": f"{PLACE} (SELECT r.session_id FROM hansa.runs r WHERE r.tenant_id = (SELECT hansa.tenant()) AND r.id = $1)",
    "approval": f"""{PLACE} (SELECT r.session_id FROM hansa.approvals a JOIN hansa.runs r ON r.tenant_id = a.tenant_id AND r.id = a.run_id
  WHERE a.tenant_id = (SELECT hansa.tenant()) AND a.id = $1)""",
}
LOOKED = 5_000
"""Rows through which a list for some namespaces goes at most, of those that its filters admit."""


class Found(msgspec.Struct, frozen=True):
    """One page of a list: JSON texts, and after which id the next one begins; None: there is none."""

    data: list[str]
    last: UUID | None


class List(msgspec.Struct, frozen=True):
    """SQL of a list, newest first: $2 rows before $1, then what is asked of them, all of the tenant's, or those in the namespaces that are
    the last parameter. There a row without a body says how far was looked, if there may be more. The namespace is asked row by row, in a
    sub-select: for a join the planner might read all sessions first."""

    whole: str
    within: str


SESSION_ROWS = """FROM hansa.sessions a WHERE a.tenant_id = (SELECT hansa.tenant()) AND ($1::uuid IS NULL OR a.id < $1)
  AND ($3::text IS NULL OR a.agent = $3) ORDER BY a.id DESC"""
SESSIONS = List(
    f"SELECT a.id, {SESSION} AS body {SESSION_ROWS} LIMIT $2",
    f"""WITH found AS MATERIALIZED (
    SELECT r.id FROM (SELECT a.* {SESSION_ROWS} LIMIT {LOOKED}) r WHERE r.namespace = ANY ($4) ORDER BY r.id DESC LIMIT $2)
  SELECT a.id, {SESSION} AS body FROM found f JOIN hansa.sessions a ON a.tenant_id = (SELECT hansa.tenant()) AND a.id = f.id
  UNION ALL SELECT e.id, NULL FROM (SELECT a.id {SESSION_ROWS} OFFSET {LOOKED} - 1 LIMIT 1) e WHERE (SELECT count(*) FROM found) < $2""",
)
RUN_ROWS = """FROM hansa.runs a WHERE a.tenant_id = (SELECT hansa.tenant()) AND ($1::uuid IS NULL OR a.id < $1)
  AND ($3::text IS NULL OR a.agent = $3) AND ($4::text IS NULL OR a.state = $4) AND ($5::uuid IS NULL OR a.session_id = $5)
  ORDER BY a.id DESC"""
RUNS = List(
    f"SELECT a.id, hansa.run_json(a) AS body {RUN_ROWS} LIMIT $2",
    f"""WITH found AS MATERIALIZED (
    SELECT r.id FROM (SELECT a.* {RUN_ROWS} LIMIT {LOOKED}) r
    WHERE (SELECT s.namespace FROM hansa.sessions s WHERE s.tenant_id = r.tenant_id AND s.id = r.session_id) = ANY ($6)
    ORDER BY r.id DESC LIMIT $2)
  SELECT a.id, hansa.run_json(a) AS body FROM found f JOIN hansa.runs a ON a.tenant_id = (SELECT hansa.tenant()) AND a.id = f.id
  UNION ALL SELECT e.id, NULL FROM (SELECT a.id {RUN_ROWS} OFFSET {LOOKED} - 1 LIMIT 1) e WHERE (SELECT count(*) FROM found) < $2""",
)
APPROVAL_ROWS = """FROM hansa.approvals a WHERE a.tenant_id = (SELECT hansa.tenant()) AND ($1::uuid IS NULL OR a.id < $1)
  AND ($3::text IS NULL OR a.state = $3) ORDER BY a.id DESC"""
APPROVALS = List(
    f"SELECT a.id, {APPROVAL} AS body {APPROVAL_ROWS} LIMIT $2",
    f"""WITH found AS MATERIALIZED (
    SELECT r.id FROM (SELECT a.* {APPROVAL_ROWS} LIMIT {LOOKED}) r
    WHERE (SELECT s.namespace FROM hansa.runs o JOIN hansa.sessions s ON s.tenant_id = o.tenant_id AND s.id = o.session_id
      WHERE o.tenant_id = r.tenant_id AND o.id = r.run_id) = ANY ($4)
    ORDER BY r.id DESC LIMIT $2)
  SELECT a.id, {APPROVAL} AS body FROM found f JOIN hansa.approvals a ON a.tenant_id = (SELECT hansa.tenant()) AND a.id = f.id
  UNION ALL SELECT e.id, NULL FROM (SELECT a.id {APPROVAL_ROWS} OFFSET {LOOKED} - 1 LIMIT 1) e WHERE (SELECT count(*) FROM found) < $2""",
)


async def page(connection: Connection, what: List, *filters: Any, before: UUID | None, limit: int, within: Places) -> Found:
    """A page of a list of the connection's tenant; `filters` as the list has them, None each: whatever it is."""
    values = (before, limit + 1, *filters)
    rows = await (connection.fetch(what.whole, *values) if within is None else connection.fetch(what.within, *values, within))
    shown = sorted(((row["id"], row["body"]) for row in rows if row["body"] is not None), reverse=True)
    if len(shown) > limit:
        return Found([body for _, body in shown[:limit]], shown[limit - 1][0])
    return Found([body for _, body in shown], next((row["id"] for row in rows if row["body"] is None), None))


async def namespace_of(connection: Connection, what: str, id: UUID) -> str | None:
    """The namespace in which a session, run or approval of the connection's tenant is; None: there is none, or nobody knows."""
    return await connection.fetchval(PLACES[what], id)


async def namespace_of_agent(connection: Connection, name: str) -> str | None:
    """The namespace in which an agent of the connection's tenant stands now; None: there is none, or nobody knows."""
    return await connection.fetchval(AGENT, name)
