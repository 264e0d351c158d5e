"""What a process keeps of agents' revisions between runs: manifests, decoded and resolved once, as of a version of the objects.

A run is driven by the objects as they are when it is loaded; any change of any object of the tenant makes a new version.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from uuid import UUID

import msgspec

from hansa.agents import store
from hansa.apply.model import KnownServer
from hansa.auth.bindings import bound_of, places_of
from hansa.auth.model import IN_RUNS, Starter
from hansa.db.pool import Connection, Database
from hansa.llm.metering import Target
from hansa.llm.service import resolve
from hansa.plugins.model import Plugins
from hansa.runs.model import World
from hansa.tenants.allowance import Allowance
from hansa.tools.model import Selection
from hansa.tools.selection import select
from hansa.tools.servers import Connections
from hansa_crds import Agent, ModelProvider, RoleBinding, TenantAllowed
from hansa_sdk import AgentDefinition, Example, Limits, RunFailed, Runtime

KEPT = 1000
Key = tuple[UUID, str, int]


class Prepared(msgspec.Struct, frozen=True):
    """An agent's revision, ready to be run. `missing` says why there is no target; `egress` is its tenant's list, None: all;
    `may`: what its runs may do at most."""

    version: int
    spec: Agent
    definition: AgentDefinition
    runtime: Runtime
    targets: list[Target]
    missing: list[str]
    select: Callable[[Connections], Selection]
    uses_servers: bool
    egress: tuple[str, ...] | None = None
    may: frozenset[str] = IN_RUNS


class Worlds:
    """The revisions that were used last."""

    def __init__(self, database: Database, plugins: Plugins) -> None:
        self._database = database
        self._plugins = plugins
        self._kept: OrderedDict[Key, Prepared] = OrderedDict()

    async def get(self, tenant_id: UUID, agent: str, revision: int, *, version: int) -> Prepared:
        """A revision, by objects not older than `version`. Raises `RunFailed` when something it names is not there."""
        key = (tenant_id, agent, revision)
        found = self._kept.get(key)
        if found is None or found.version < version:
            async with self._database.tenant(tenant_id) as connection:
                world = await find_world(connection, agent, revision)
            found = self._kept[key] = prepare(world, revision, self._plugins)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found


async def find_world(connection: Connection, agent: str, revision: int) -> World:
    """What objects say of an agent's revision, in the caller's transaction. Of agents that its runs may never call nothing is said."""
    row = await store.world(connection, agent, revision)
    world = msgspec.structs.replace(
        msgspec.json.decode(row["world"], type=World),
        allowed=msgspec.json.decode(row["allowed"] or "null"),
        bindings=msgspec.json.decode(row["bindings"] or "[]", type=list[RoleBinding]),
        owner=msgspec.json.decode(row["owner"] or "null", type=Starter | None),
    )
    places = places_of("runs:start", bound_of(agent, world.bindings, world.owner))
    if places is None or not world.agents:
        return world
    near = await store.standing(connection, [each.name for each in world.agents], places)
    return msgspec.structs.replace(world, agents=[each for each in world.agents if each.name in near])


def prepare(world: World, revision: int, plugins: Plugins) -> Prepared:
    """Decode and resolve what objects say of a revision."""
    agent = msgspec.convert(world.manifest, Agent)
    known = plugins.runtimes.get(agent.spec.runtime.name)
    if known is None:
        loaded = ", ".join(sorted(plugins.runtimes)) or "none"
        raise RunFailed(
            f"the runtime {agent.spec.runtime.name!r} is not loaded (loaded: {loaded})", code="runtime_missing", hint="Install its plugin."
        )
    allowance = Allowance(msgspec.convert(world.allowed or {}, TenantAllowed))
    refusal = allowance.refusal("plugins", [known[0]])
    if refusal:
        raise RunFailed(f"runtime {agent.spec.runtime.name!r}: {refusal}", code="not_allowed", hint="Change the agent's runtime.")
    providers = [msgspec.convert(manifest, ModelProvider) for manifest in world.providers]
    targets, missing = _permitted(*resolve((agent.spec.model, *agent.spec.model.fallbacks), providers), allowance, plugins)
    servers = msgspec.convert(world.tool_servers, list[KnownServer])
    agents = {each.name: each.description for each in world.agents}
    uses_servers = any(use.tool_server for use in agent.spec.tools)
    choose = partial(select, agent, plugins, servers, agents=agents, allowance=allowance)
    return Prepared(
        version=world.version,
        spec=agent,
        definition=definition(agent, revision),
        runtime=known[1],
        targets=targets,
        missing=missing,
        select=(lambda connections: choose(connections=connections)) if uses_servers else _once(choose),
        uses_servers=uses_servers,
        egress=allowance.lists.egress,
        may=bound_of(agent.metadata.name, world.bindings, world.owner),
    )


def _once(choose: Callable[..., Selection]) -> Callable[[Connections], Selection]:
    """Choose at the first run: where no tool goes over a run's connections, all runs have the same."""
    chosen: list[Selection] = []

    def first(connections: Connections) -> Selection:
        if not chosen:
            chosen.append(choose(connections=connections))
        return chosen[0]

    return first


def _permitted(targets: list[Target], missing: list[str], allowance: Allowance, plugins: Plugins) -> tuple[list[Target], list[str]]:
    """The targets that the tenant may use, and why others are missing."""
    kept: list[Target] = []
    for target in targets:
        kind, ref = target.provider.spec.plugin, f"{target.provider.metadata.name}/{target.model}"
        refusal = allowance.refusal("models", [ref]) or allowance.refusal("plugins", [plugins.brings(kind)])
        if refusal:
            missing = [*missing, refusal]
        else:
            kept.append(target)
    return kept, missing


def definition(agent: Agent, revision: int) -> AgentDefinition:
    """An agent's manifest as its runtime sees it."""
    spec = agent.spec
    return AgentDefinition(
        name=agent.metadata.name,
        revision=revision,
        instructions=spec.instructions,
        examples=tuple(Example(example.input, example.output) for example in spec.examples),
        input_template=spec.input_template,
        output_schema=spec.output_schema,
        max_tokens=spec.model.params.max_tokens or 1024,
        temperature=spec.model.params.temperature,
        limits=Limits(
            turns=spec.limits.turns,
            tokens=spec.limits.tokens,
            timeout=float(spec.limits.timeout_seconds),
            approval=float(spec.limits.approval_seconds),
            cost=round(spec.limits.cost * 1_000_000),
        ),
        runtime_config=spec.runtime.config,
    )
