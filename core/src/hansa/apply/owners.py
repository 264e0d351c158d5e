"""Who owns an agent: whoever applied it last. Its runs may do no more than that one could."""

import msgspec

from hansa.apply import store
from hansa.auth.model import Principal
from hansa.db.pool import Connection
from hansa_crds import Agent

NOTE = "it will call no agents: whoever applies it must have the permission runs:start"


async def keep_owner(connection: Connection, principal: Principal, agent: Agent) -> str:
    """Keep the owner of an agent that was applied just now; what is to be said where it will be able to do less than it wants."""
    owner = msgspec.structs.replace(principal.starter, on_behalf_of=None)
    await store.set_owner(connection, agent.metadata.name, msgspec.json.encode(owner).decode())
    return NOTE if any(use.agent for use in agent.spec.tools) and "runs:start" not in (owner.may or ()) else ""
