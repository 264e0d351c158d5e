"""Asking the ToolServers of a request for their tools, before its transaction: none waits for a stranger."""

import asyncio
from collections.abc import Awaitable, Callable

from hansa import clock
from hansa.apply.candidates import Candidate
from hansa.apply.model import Discover, ToolServerStatus
from hansa.tenants.allowance import NO_BOUND, Allowance
from hansa.tenants.service import tenant_id
from hansa_crds import ToolServer

DISCOVERIES = 8
DISCOVERY_SECONDS = 20.0
"""After so many seconds no further ToolServer of a request is asked for its tools."""


async def discovered(
    candidates: list[Candidate], discover: Discover, allowance: Callable[[str], Awaitable[Allowance | None]]
) -> dict[tuple[str, str], ToolServerStatus]:
    """What each ToolServer says, by its tenant and name. `allowance` tells what a tenant may use; None: its database is away, and none of
    its servers is asked."""
    servers = {(each.tenant, each.name): each.found for each in candidates if isinstance(each.found, ToolServer)}
    give_up, slots = clock.monotonic() + DISCOVERY_SECONDS, asyncio.Semaphore(DISCOVERIES)
    allowances = {tenant: await allowance(tenant) for tenant in {tenant for tenant, _ in servers}}
    servers = {(tenant, name): each for (tenant, name), each in servers.items() if allowances[tenant] is not None}

    async def ask(tenant: str, server: ToolServer) -> ToolServerStatus:
        async with slots:
            refusal = (allowances[tenant] or NO_BOUND).endpoint_refusal(server.spec.endpoint)
            if refusal:
                return ToolServerStatus(False, refusal)
            if clock.monotonic() >= give_up:
                return ToolServerStatus(False, "not asked: the other ToolServers of the request were too slow; apply it again")
            return await discover(tenant_id(tenant), server)

    return dict(zip(servers, await asyncio.gather(*(ask(tenant, server) for (tenant, _), server in servers.items())), strict=True))
