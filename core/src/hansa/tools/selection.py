"""Which tools an agent may call in a run: those of plugins, ToolServers and other agents that it names, as they are when it begins.

The same is asked when the agent is applied; what has changed since then ends the run with a reason.
"""

from collections.abc import Mapping, Sequence

import msgspec

from hansa.apply.model import KnownServer
from hansa.plugins.model import Plugins
from hansa.tenants.allowance import NO_BOUND, Allowance
from hansa.tools.cage.service import Narrower
from hansa.tools.model import Policy, Selection
from hansa.tools.servers import Connections
from hansa_crds import Agent, AgentTools, CageBounds
from hansa_sdk import Effect, RunFailed, Tool


def select(
    agent: Agent,
    plugins: Plugins,
    servers: Sequence[KnownServer],
    *,
    connections: Connections,
    agents: Mapping[str, str],
    allowance: Allowance = NO_BOUND,
) -> Selection:
    """The agent's tools. `agents`: descriptions of those there are, by name. Raises `RunFailed` for one that is not there, one that the
    tenant may not use and for a name that comes twice."""
    known = {server.name: server for server in servers}
    tools: dict[str, tuple[str, Tool]] = {}
    callees: dict[str, str] = {}
    policies: dict[str, Policy] = {}
    for use in agent.spec.tools:
        if use.agent is not None:
            callees[use.agent] = agents.get(use.agent, "")
            policies[use.agent] = _policy(use, use.agent, declared=True)
            continue
        if use.plugin is not None:
            _demand(allowance.refusal("plugins", [use.plugin]))
        source, offered = _offered(use, plugins, known, connections)
        missing = sorted(set(use.allow) - set(offered)) if offered else sorted(use.allow) or ["all its tools"]
        if missing:
            raise RunFailed(
                f"{source} does not bring {', '.join(missing)} (it brings: {', '.join(sorted(offered)) or 'nothing'})",
                code="tool_missing",
                hint="`hansa tools` lists what plugins bring; for a ToolServer, apply it again and look at its status.",
            )
        names = list(use.allow or offered)
        _demand(allowance.refusal("tools", sorted(names)))
        for name in names:
            if name in tools:
                raise RunFailed(
                    f"{source} and {tools[name][0]} both bring a tool {name!r}",
                    code="tool_ambiguous",
                    hint="Leave it out of one of them: write the others in `allow`.",
                )
            tool = offered[name]
            tools[name] = (source, msgspec.structs.replace(tool, effect=Effect(use.effect)) if use.effect else tool)
            policy = _policy(use, name, declared=tool.untrusted)
            # A ToolServer's address is what its object says, no model's choice: the tenant's list holds for it, the agent's does not.
            policies[name] = msgspec.structs.replace(policy, egress=agent.spec.egress) if use.plugin else policy
    return Selection(tools, callees, policies, taint=agent.spec.taint == "RequireApproval")


def _policy(use: AgentTools, name: str, *, declared: bool) -> Policy:
    cage = use.cage or CageBounds()
    return Policy(
        rules=tuple(rule for rule in use.arguments if not rule.tools or name in rule.tools),
        approval="*" in use.require_approval or name in use.require_approval,
        untrusted=declared if use.untrusted is None else use.untrusted,
        cage=Narrower(cage.seconds, cage.memory_mebibytes * 2**20 if cage.memory_mebibytes else None, network=cage.network),
        secrets=use.secrets,
    )


def _demand(refusal: str) -> None:
    if refusal:
        raise RunFailed(refusal, code="not_allowed", hint="Change the agent, or let who runs the platform change the Tenant.")


def _offered(use: AgentTools, plugins: Plugins, known: Mapping[str, KnownServer], connections: Connections) -> tuple[str, dict[str, Tool]]:
    if use.tool_server is None:
        return f"plugin {use.plugin!r}", {name: tool for name, (plugin, tool) in plugins.tools.items() if plugin == use.plugin}
    server = known.get(use.tool_server)
    if server is None:
        raise RunFailed(f"there is no ToolServer {use.tool_server!r}", code="tool_missing", hint="Apply it, or change the agent.")
    if not server.tools and server.trouble:
        raise RunFailed(f"ToolServer {use.tool_server!r}: {server.trouble}", code="tool_missing", hint="Apply it again when it works.")
    return f"ToolServer {use.tool_server!r}", connections.tools(server)
