"""All SQL about checking revisions of agents, and about what an agent's status follows from."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from hansa.apply.model import KnownServer
from hansa.apply.rollout.model import Facts
from hansa.db.pool import Connection
from hansa_crds import Agent, ModelProvider, TenantAllowed


class Around(msgspec.Struct, frozen=True):
    """What agents refer to: the servers and agents that they name, the providers that offer the models that they name (all, where a model
    is offered by none), and what their tenant may use. `changed_at`: when any provider, server or the Tenant was last changed."""

    providers: list[ModelProvider]
    servers: list[KnownServer]
    agents: list[str]
    allowed: TenantAllowed | None = None
    changed_at: datetime | None = None


class Told(msgspec.Struct, frozen=True):
    """What the status of agents follows from: what rows say of each that is there, and what is around them."""

    facts: list[Facts]
    around: Around


def read(told: str) -> Told:
    """What the SQL function agents_told says, from JSON text."""
    return msgspec.json.decode(told, type=Told)


async def told(connection: Connection, names: Sequence[str]) -> str:
    """What the status of agents of the connection's tenant follows from, as JSON text."""
    return await connection.fetchval("SELECT hansa.agents_told((SELECT hansa.tenant()), $1)", names)


async def begin(connection: Connection, agent: Agent, revision: int, *, digest: bytes, seconds: int, run: UUID) -> str:
    """A revision that asks to be checked was applied: `served`, `checking` (by `run`) or `refused`, see the SQL function."""
    spec = agent.spec
    return await connection.fetchval(
        "SELECT hansa.rollout_begin((SELECT hansa.tenant()), $1, $2, $3, $4, $5, $6, $7, $8, $9)",
        agent.metadata.name,
        revision,
        digest,
        seconds,
        spec.suspend,
        spec.concurrency,
        spec.placement.pool,
        spec.limits.concurrent_runs or None,
        run,
    )


async def again(connection: Connection, agent: str, run: UUID) -> str | None:
    """Check an agent's newest revision once more: `begun`, or the state of it, or None where nothing is to be checked."""
    return await connection.fetchval("SELECT hansa.rollout_again((SELECT hansa.tenant()), $1, $2)", agent, run)


async def manifest(connection: Connection, agent: str, revision: int) -> dict[str, Any] | None:
    """A revision of an agent."""
    text = await connection.fetchval(
        "SELECT manifest FROM hansa.agent_revisions WHERE tenant_id = (SELECT hansa.tenant()) AND agent = $1 AND revision = $2",
        agent,
        revision,
    )
    return None if text is None else msgspec.json.decode(text)


async def start(connection: Connection, place: tuple[str, int], *, run: UUID, session: UUID, input: str, by: str) -> bool:
    """Start the run that checks a revision of an agent; `input` and `by` are JSON texts. False: that is not wanted any more."""
    sql = "SELECT hansa.rollout_start((SELECT hansa.tenant()), $1, $2, $3, $4, $5, $6)"
    return await connection.fetchval(sql, *place, run, session, input, by)
