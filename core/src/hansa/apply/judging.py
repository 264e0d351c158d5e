"""Whether an object may stand in its tenant: everything it names is there, and its tenant may use it. What the tenant has is read once for
all objects of a kind.
"""

from collections.abc import Iterable, Sequence

import msgspec

from hansa.apply import store
from hansa.apply.candidates import Candidate
from hansa.apply.model import CLUSTER, KnownServer
from hansa.apply.narrowing import Judges, beyond, unreadable
from hansa.apply.references import unresolved
from hansa.apply.sight import visible
from hansa.auth.identity import refused_issuers
from hansa.auth.model import Principal
from hansa.db.pool import Connection
from hansa.errors import FieldError
from hansa.plugins.model import Plugins
from hansa.tenants.allowance import NO_BOUND, Allowance
from hansa_crds import Agent, HansaObject, ModelProvider, Tenant, TenantAllowed


class Surroundings(msgspec.Struct, frozen=True):
    """What a tenant has, as far as objects of one kind refer to it."""

    allowance: Allowance = NO_BOUND
    providers: Sequence[ModelProvider] = ()
    servers: Sequence[KnownServer] = ()


async def surroundings(connection: Connection, principal: Principal, kind: str, group: Iterable[Candidate]) -> Surroundings:
    """Read what objects of a kind refer to in the connection's tenant, as far as who applies them may see it."""
    if kind in CLUSTER:
        return Surroundings()
    allowance = allowance_of(await store.allowed(connection))
    if kind != "Agent":
        return Surroundings(allowance)
    texts = await store.manifests(connection, "ModelProvider")
    named = {
        use.tool_server for each in group if isinstance(each.found, Agent) for use in each.found.spec.tools if use.tool_server is not None
    }
    servers = await store.tool_servers(connection, sorted(named)) if named else []
    known = [msgspec.json.decode(text, type=KnownServer) for text in servers]
    seen = {each.metadata.name for each in visible(principal, [each.manifest for each in known])}
    return Surroundings(
        allowance,
        visible(principal, [msgspec.json.decode(text, type=ModelProvider) for text in texts]),
        [each for each in known if each.name in seen],
    )


def allowance_of(text: str | None) -> Allowance:
    """What a tenant may use, as its object says."""
    return Allowance(msgspec.json.decode(text, type=TenantAllowed)) if text else NO_BOUND


def refusals(found: HansaObject, around: Surroundings, plugins: Plugins, judges: Judges) -> tuple[FieldError, ...]:
    """Everything for which an object is refused."""
    missing = unresolved(found, plugins, around.providers, around.servers, variables=judges.variables)
    if isinstance(found, Tenant):
        missing = [*missing, *refused_issuers(found.spec.identity, judges.issuers)]
    if missing:
        return tuple(missing)
    narrower = beyond(found, around.allowance, plugins, around.providers, servers=around.servers)
    return (*narrower, *unreadable(found, judges, plugins, around.servers))
