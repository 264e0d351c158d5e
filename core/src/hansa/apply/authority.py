"""Whose rights the runs of an agent have: they may do no more than whoever applied it last."""

from collections.abc import Sequence

import msgspec

from hansa.apply import store
from hansa.auth.model import Principal
from hansa.db.pool import Connection
from hansa_crds import Agent

NOTE = "it will call no agents: whoever applies it must have the permission runs:start"


async def keep_applier(connection: Connection, principal: Principal, names: Sequence[str]) -> bool:
    """Keep who applied these agents just now; whether that was somebody else for any of them."""
    applier = msgspec.structs.replace(principal.starter, on_behalf_of=None)
    return await store.set_appliers(connection, names, msgspec.json.encode(applier).decode())


def narrowed(principal: Principal, agent: Agent) -> str:
    """What is to be said where an agent will be able to do less than it wants; empty: nothing."""
    return NOTE if any(use.agent for use in agent.spec.tools) and not principal.may("runs:start") else ""
