"""Which tools an agent may call in a run: those of plugins, ToolServers and other agents that it names, as they are when it begins.

The same is asked when the agent is applied; what has changed since then ends the run with a reason.
"""

from collections.abc import Mapping, Sequence

from hansa.apply.model import KnownServer
from hansa.plugins.model import Plugins
from hansa.tools.model import Selection
from hansa.tools.servers import Connections
from hansa_crds import Agent, AgentTools, SecretRef
from hansa_sdk import RunFailed, Tool


def select(
    agent: Agent, plugins: Plugins, servers: Sequence[KnownServer], *, connections: Connections, agents: Mapping[str, str]
) -> Selection:
    """The agent's tools. `agents`: descriptions of those there are, by name. Raises `RunFailed` for one that is not there and for a
    name that comes twice."""
    known = {server.name: server for server in servers}
    tools: dict[str, tuple[str, Tool]] = {}
    callees: dict[str, str] = {}
    approvals = set[str]()
    secrets: dict[str, Mapping[str, SecretRef]] = {}
    for use in agent.spec.tools:
        if use.agent is not None:
            callees[use.agent] = agents.get(use.agent, "")
            approvals.update([use.agent] if use.require_approval else [])
            continue
        source, offered = _offered(use, plugins, known, connections)
        missing = sorted(set(use.allow) - set(offered)) if offered else sorted(use.allow) or ["all its tools"]
        if missing:
            raise RunFailed(
                f"{source} does not bring {', '.join(missing)} (it brings: {', '.join(sorted(offered)) or 'nothing'})",
                code="tool_missing",
                hint="`hansa tools` lists what plugins bring; for a ToolServer, apply it again and look at its status.",
            )
        names = list(use.allow or offered)
        for name in names:
            if name in tools:
                raise RunFailed(
                    f"{source} and {tools[name][0]} both bring a tool {name!r}",
                    code="tool_ambiguous",
                    hint="Leave it out of one of them: write the others in `allow`.",
                )
            tools[name] = (source, offered[name])
            if use.secrets:
                secrets[name] = use.secrets
        approvals.update(names if "*" in use.require_approval else use.require_approval)
    return Selection(tools, callees, frozenset(approvals), secrets)


def _offered(use: AgentTools, plugins: Plugins, known: Mapping[str, KnownServer], connections: Connections) -> tuple[str, dict[str, Tool]]:
    if use.tool_server is None:
        return f"plugin {use.plugin!r}", {name: tool for name, (plugin, tool) in plugins.tools.items() if plugin == use.plugin}
    server = known.get(use.tool_server)
    if server is None:
        raise RunFailed(f"there is no ToolServer {use.tool_server!r}", code="tool_missing", hint="Apply it, or change the agent.")
    if not server.tools and server.trouble:
        raise RunFailed(f"ToolServer {use.tool_server!r}: {server.trouble}", code="tool_missing", hint="Apply it again when it works.")
    return f"ToolServer {use.tool_server!r}", connections.tools(server)
