"""Reading agents."""

import msgspec

from hansa.agents import store
from hansa.apply.rollout.model import AgentStatus
from hansa.apply.rollout.service import Rollouts, no_agent
from hansa.apply.sight import sees
from hansa.auth.model import Principal
from hansa.db.pool import Database

NEWEST = 2**31 - 1
READING = "agents:read"


class AgentPage(msgspec.Struct, frozen=True):
    """One page: JSON texts, and where the next one begins (None: there is none)."""

    data: list[str]
    last: str | int | None


class Agents:
    """Agents of a tenant."""

    def __init__(self, database: Database, rollouts: Rollouts) -> None:
        self._database = database
        self._rollouts = rollouts

    async def get(self, principal: Principal, name: str) -> str:
        """An agent as JSON text."""
        row = await store.find(self._database, principal.tenant_id, name)
        if row is None or not sees(principal, READING, row["body"]):
            raise no_agent(name)
        return shown(row["body"], self._rollouts.read(principal, row["told"]).get(name))

    async def page(self, principal: Principal, *, after: str, limit: int) -> AgentPage:
        """Agents by name."""
        async with self._database.tenant(principal.tenant_id) as connection:
            rows = await store.page(connection, after, limit + 1, within=principal.reach(READING))
            statuses = await self._rollouts.statuses(connection, principal, [row["name"] for row in rows[:limit]])
        bodies = [shown(row["body"], statuses.get(row["name"])) for row in rows[:limit]]
        return AgentPage(bodies, rows[limit - 1]["name"] if len(rows) > limit else None)

    async def revisions(self, principal: Principal, name: str, *, before: int | None, limit: int) -> AgentPage:
        """Revisions of an agent, newest first; they are kept when the agent is deleted."""
        async with self._database.tenant(principal.tenant_id) as connection:
            within = principal.reach(READING)
            rows = await store.revisions(connection, principal, name, before=before or NEWEST, limit=limit + 1, within=within)
        if not rows and before is None:
            raise no_agent(name)
        return AgentPage([row["body"] for row in rows[:limit]], rows[limit - 1]["revision"] if len(rows) > limit else None)


def shown(body: str, status: AgentStatus | None) -> str:
    """An agent as JSON text, with its status, if there is one."""
    return body if status is None else f'{body[:-1]}, "status" : {msgspec.json.encode(status).decode()}}}'
