"""New revisions of agents: checked before they serve where the object asks for it; and the status of agents.

What decides is in the database: the run that checks a revision ends, and in the same transaction the revision serves or is refused.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from hansa import ids
from hansa.apply import store as objects
from hansa.apply.narrowing import Judges, beyond, unreadable
from hansa.apply.references import unresolved
from hansa.apply.rollout import store
from hansa.apply.rollout.conditions import Troubles, conditions_of
from hansa.apply.rollout.model import AgentStatus, Facts, RevisionStatus
from hansa.apply.sight import READING, WRITING, judge, visible
from hansa.audit.model import Action
from hansa.audit.service import record
from hansa.auth.idempotency import Answer, IdempotencyKey, once
from hansa.auth.model import Principal
from hansa.db.pool import Connection, Database
from hansa.errors import Conflict, FieldError, NotFound
from hansa.plugins.model import Plugins
from hansa.tenants.allowance import NO_BOUND, Allowance
from hansa_crds import Agent


async def begin(connection: Connection, agent: Agent, revision: int) -> None:
    """A revision that asks to be checked was applied; its object is written and locked. What served goes on serving until it has passed."""
    rollout = agent.spec.rollout
    if rollout is not None:
        spec = msgspec.json.encode(msgspec.structs.replace(agent.spec, suspend=False), order="sorted")
        digest = hashlib.sha256(spec).digest()
        await store.begin(connection, agent, revision, digest=digest, seconds=rollout.timeout_seconds, run=ids.new_id())


class Rollouts:
    """The status of agents, and what people do with revisions that were refused."""

    def __init__(self, database: Database, plugins: Plugins, judges: Judges) -> None:
        self._database = database
        self._plugins = plugins
        self._judges = judges

    async def statuses(self, connection: Connection, principal: Principal, names: Sequence[str]) -> dict[str, AgentStatus]:
        """The status of agents of the connection's tenant, those that are there: name -> status, as the caller may see it."""
        return self.read(principal, await store.told(connection, names)) if names else {}

    def read(self, principal: Principal, text: str) -> dict[str, AgentStatus]:
        """The status of agents, name -> status, from what the database tells of them (the SQL function agents_told) as JSON text. What is
        wrong is the same for all who read it; what there is instead is told to those who may see that."""
        told = store.read(text)
        found = [(facts, *_read(facts)) for facts in told.facts]
        return {
            facts.name: AgentStatus(
                observed_generation=facts.generation,
                conditions=tuple(
                    conditions_of(
                        facts,
                        Troubles(unread=unread) if agent is None else self._troubles(principal, agent, told.around),
                        suspended=agent is not None and agent.spec.suspend,
                    )
                ),
                revision=RevisionStatus(facts.desired, facts.serving or None),
                source=facts.source,
            )
            for facts, agent, unread in found
        }

    async def with_status(self, connection: Connection, principal: Principal, objects: Sequence[tuple[str, str, str]]) -> list[str]:
        """Objects as JSON texts, (kind, name, text) each: the agents among them with their status."""
        statuses = await self.statuses(connection, principal, [name for kind, name, _ in objects if kind == "Agent"])
        return [
            msgspec.json.encode({**msgspec.json.decode(text), "status": statuses[name]}).decode()
            if kind == "Agent" and name in statuses
            else text
            for kind, name, text in objects
        ]

    async def told(self, connection: Connection, principal: Principal, names: Sequence[str]) -> dict[str, tuple[dict[str, Any], str]]:
        """What is answered of agents that were applied: their status, and a note where the revision does not serve."""
        statuses = await self.statuses(connection, principal, names)
        ready = {name: status.conditions[-1] for name, status in statuses.items()}
        notes = {name: each.message if each.reason in ("Checking", "Refused") else "" for name, each in ready.items()}
        return {name: (msgspec.to_builtins(status), notes[name]) for name, status in statuses.items()}

    def _troubles(self, principal: Principal, agent: Agent, around: store.Around) -> Troubles:
        known = [server for server in around.servers if any(use.tool_server == server.name for use in agent.spec.tools)]
        missing = unresolved(agent, self._plugins, around.providers, known, variables=self._judges.variables)
        if missing and principal.reach(READING) is not None:
            wrong, seen = {each.path for each in missing}, visible(principal, around.providers)
            told = unresolved(agent, self._plugins, seen, known, variables=self._judges.variables)
            missing = [each for each in told if each.path in wrong]
        missing += [
            FieldError(f"spec.tools[{number}].agent", "reference", f"there is no agent {use.agent!r}")
            for number, use in enumerate(agent.spec.tools)
            if use.agent is not None and use.agent not in around.agents
        ]
        allowance = Allowance(around.allowed) if around.allowed is not None else NO_BOUND
        return Troubles(
            not_allowed=beyond(agent, allowance, self._plugins, around.providers, servers=known),
            missing=missing,
            # A rule on the tools of a server that is not there is one trouble, not two.
            unfit=[] if missing else unreadable(agent, self._judges, self._plugins, known),
            since=around.changed_at,
        )

    async def again(self, principal: Principal, name: str, *, key: IdempotencyKey | None) -> Answer:
        """Check the agent's newest revision, which was refused, once more: the agent's status. Raises `NotFound`, `Forbidden`."""
        if principal.reach(WRITING) is not None:
            async with self._database.tenant(principal.tenant_id) as connection:
                known = (await objects.lock(connection, "Agent", [name])).get(name)
            judge(principal, WRITING, "Agent", known, unseen=no_agent(name))

        async def operation(connection: Connection) -> tuple[int, str]:
            outcome = await store.again(connection, name, ids.new_id())
            statuses = await self.statuses(connection, principal, [name])
            if name not in statuses:
                raise no_agent(name)
            if outcome != "begun":
                what = "is being checked already" if outcome == "checking" else "was not refused"
                raise Conflict(f"revision {statuses[name].revision.desired} of agent {name!r} {what}: there is nothing to try again")
            await record(
                connection, principal.did(Action.ROLLOUT_RETRIED, f"Agent/{name}", after={"revision": statuses[name].revision.desired})
            )
            return 202, msgspec.json.encode(statuses[name]).decode()

        return await once(self._database, principal, key, operation)


def no_agent(name: str) -> NotFound:
    """What is said of an agent that is not there."""
    return NotFound(f"there is no agent {name!r}", hint="`hansa get agents` lists them.")


def _read(facts: Facts) -> tuple[Agent | None, str]:
    """The agent, or why this version can't read it."""
    try:
        return msgspec.convert(facts.manifest, Agent), ""
    except msgspec.ValidationError as error:
        return None, str(error)
