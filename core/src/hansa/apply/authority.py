"""Whose rights the runs of an agent have: they may do no more than whoever applied it last."""

from collections.abc import Sequence

import msgspec

from hansa.apply import store
from hansa.auth.model import Principal
from hansa.db.pool import Connection
from hansa_crds import Agent

ONLY_IN = "it will call agents only in namespaces where whoever applies it has the permission runs:start:"
NOTE = "it will call no agents: whoever applies it must have the permission runs:start"


async def keep_applier(connection: Connection, principal: Principal, names: Sequence[str]) -> bool:
    """Keep who applied these agents just now; whether that was somebody else for any of them."""
    applier = msgspec.structs.replace(principal.starter, on_behalf_of=None)
    return await store.set_appliers(connection, names, msgspec.json.encode(applier).decode())


def narrowed(principal: Principal, agent: Agent) -> str:
    """What is to be said where an agent will be able to do less than it wants; empty: nothing."""
    reach = principal.reach("runs:start")
    if reach is None or not any(use.agent for use in agent.spec.tools):
        return ""
    return f"{ONLY_IN} {', '.join(sorted(reach))}" if reach else NOTE
