"""All SQL about where sessions, runs, approvals and agents stand."""

from uuid import UUID

from hansa.db.pool import Connection

AGENT = "SELECT namespace FROM hansa.agents WHERE tenant_id = (SELECT hansa.tenant()) AND name = $1"
SESSION = "SELECT s.namespace FROM hansa.sessions s WHERE s.tenant_id = (SELECT hansa.tenant()) AND s.id = "
PLACES = {
    "session": f"{SESSION} $1",
    "run": f"{SESSION} (SELECT r.session_id FROM hansa.runs r WHERE r.tenant_id = (SELECT hansa.tenant()) AND r.id = $1)",
    "approval": f"""{SESSION} (SELECT r.session_id FROM hansa.approvals a JOIN hansa.runs r ON r.tenant_id = a.tenant_id AND r.id = a.run_id
  WHERE a.tenant_id = (SELECT hansa.tenant()) AND a.id = $1)""",
}


async def namespace_of(connection: Connection, what: str, id: UUID) -> str | None:
    """The namespace in which a session, run or approval of the connection's tenant is; None: there is none, or nobody knows."""
    return await connection.fetchval(PLACES[what], id)


async def namespace_of_agent(connection: Connection, name: str) -> str | None:
    """The namespace in which an agent of the connection's tenant stands now; None: there is none, or nobody knows."""
    return await connection.fetchval(AGENT, name)
