"""Reading agents."""

import msgspec

from hansa.agents import store
from hansa.apply.rollout.model import AgentStatus
from hansa.apply.rollout.service import Rollouts
from hansa.auth.model import Principal
from hansa.db.pool import Database
from hansa.errors import NotFound

NEWEST = 2**31 - 1


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
        if row is None:
            raise NotFound(f"there is no agent {name!r}", hint="`hansa get agents` lists them.")
        return shown(row["body"], self._rollouts.read(row["told"]).get(name))

    async def page(self, principal: Principal, *, after: str, limit: int) -> AgentPage:
        """Agents by name."""
        async with self._database.tenant(principal.tenant_id) as connection:
            rows = await store.page(connection, after, limit + 1)
            statuses = await self._rollouts.statuses(connection, [row["name"] for row in rows[:limit]])
        bodies = [shown(row["body"], statuses.get(row["name"])) for row in rows[:limit]]
        return AgentPage(bodies, rows[limit - 1]["name"] if len(rows) > limit else None)

    async def revisions(self, principal: Principal, name: str, *, before: int | None, limit: int) -> AgentPage:
        """Revisions of an agent, newest first; they are kept when the agent is deleted."""
        async with self._database.tenant(principal.tenant_id) as connection:
            rows = await store.revisions(connection, name, before or NEWEST, limit + 1)
        if not rows and before is None:
            raise NotFound(f"there is no agent {name!r}", hint="`hansa get agents` lists them.")
        return AgentPage([row["body"] for row in rows[:limit]], rows[limit - 1]["revision"] if len(rows) > limit else None)


def shown(body: str, status: AgentStatus | None) -> str:
    """An agent as JSON text, with its status, if there is one."""
    return body if status is None else f'{body[:-1]}, "status" : {msgspec.json.encode(status).decode()}}}'
