"""What narrows an object: the lists of its tenant, which it may not go beyond, and the rules it states itself, which must be readable.

Pure. The same lists are asked again when a run begins: what was applied before a list was tightened is refused at use.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from hansa.apply.model import Kept, KnownServer
from hansa.apply.references import schema_flaw
from hansa.egress.policy import EgressPolicy, parse_entry
from hansa.errors import FieldError, Misconfigured
from hansa.plugins.model import Plugins
from hansa.secrets.variables import Variables
from hansa.tenants.allowance import Allowance
from hansa_crds import Agent, AgentTools, HansaObject, ModelChoice, ModelProvider, Tenant, ToolServer, changes
from hansa_crds.problem import nearest

Flaw = Callable[[str], str]
"""Says why a condition can't be understood; empty: it can."""


class Judges(msgspec.Struct, frozen=True):
    """Who is asked what may stand in an object. `flaw`: of conditions on calls, `answer_flaw`: of those on answers; `issuers`: what the
    door lets out to the issuers that Tenants name; `variables`: those that objects may have sent."""

    flaw: Flaw
    answer_flaw: Flaw
    issuers: EgressPolicy
    variables: Variables


def beyond(
    found: HansaObject, allowance: Allowance, plugins: Plugins, providers: Sequence[ModelProvider], *, servers: Sequence[KnownServer]
) -> list[FieldError]:
    """Everything in an object that its tenant may not use."""
    match found:
        case Agent():
            return [
                *_models(found, allowance, plugins, providers),
                *_runtime(found, allowance, plugins),
                *_tools(found, allowance, plugins, servers),
            ]
        case ModelProvider():
            return [
                *_refused("spec.plugin", allowance.refusal("plugins", [plugins.brings(found.spec.plugin)])),
                *_refused("spec.endpoint", allowance.endpoint_refusal(found.spec.endpoint) if found.spec.endpoint else ""),
            ]
        case ToolServer():
            return _refused("spec.endpoint", allowance.endpoint_refusal(found.spec.endpoint))
        case _:
            return []


def unreadable(found: HansaObject, judges: Judges, plugins: Plugins, servers: Sequence[KnownServer]) -> list[FieldError]:
    """Everything in an object's own lists and rules that can't be obeyed."""
    match found:
        case Agent():
            known = {server.name: server for server in servers}
            own = [
                error
                for number, use in enumerate(found.spec.tools)
                for error in _own_rules(use, f"spec.tools[{number}]", judges.flaw, usable=use.allow or _offered(use, plugins, known))
            ]
            return [*own, *_entries(found.spec.egress, "spec.egress"), *_check(found, judges.answer_flaw, plugins, known)]
        case Tenant():
            return _entries(found.spec.allowed.egress, "spec.allowed.egress")
        case _:
            return []


def turned(known: Kept | None, found: HansaObject) -> tuple[FieldError, ...]:
    """Everything in an object that may not be other than it was; `known` None: it is new."""
    told = changes(msgspec.json.decode(known.manifest), msgspec.to_builtins(found)) if known is not None else ()
    return tuple(FieldError(each.path, each.code, each.message, each.suggestion or None) for each in told)


def _refused(path: str, refusal: str) -> list[FieldError]:
    return [FieldError(path, "not_allowed", refusal)] if refusal else []


def _models(agent: Agent, allowance: Allowance, plugins: Plugins, providers: Sequence[ModelProvider]) -> list[FieldError]:
    choices: list[tuple[str, ModelChoice]] = [("spec.model", agent.spec.model)]
    choices += [(f"spec.model.fallbacks[{number}]", choice) for number, choice in enumerate(agent.spec.model.fallbacks)]
    errors: list[FieldError] = []
    for path, choice in choices:
        offered = [
            (f"{provider.metadata.name}/{model.name}", plugins.brings(provider.spec.plugin))
            for provider in providers
            for model in provider.spec.models
            if choice.ref == f"{provider.metadata.name}/{model.name}" or (choice.alias is not None and choice.alias in model.aliases)
        ]
        refusals = [allowance.refusal("models", [ref]) or allowance.refusal("plugins", [plugin]) for ref, plugin in offered]
        if refusals and all(refusals):
            errors += _refused(f"{path}.{'alias' if choice.alias is not None else 'ref'}", refusals[0])
    return errors


def _runtime(agent: Agent, allowance: Allowance, plugins: Plugins) -> list[FieldError]:
    known = plugins.runtimes.get(agent.spec.runtime.name)
    return _refused("spec.runtime.name", allowance.refusal("plugins", [known[0]])) if known else []


def _tools(agent: Agent, allowance: Allowance, plugins: Plugins, servers: Sequence[KnownServer]) -> list[FieldError]:
    known = {server.name: server for server in servers}
    errors: list[FieldError] = []
    for number, use in enumerate(agent.spec.tools):
        path = f"spec.tools[{number}]"
        if use.plugin is not None:
            errors += _refused(f"{path}.plugin", allowance.refusal("plugins", [use.plugin]))
        offered = use.allow or ([] if use.agent is not None else _offered(use, plugins, known))
        refusal = allowance.refusal("tools", sorted(offered))
        if refusal and not use.allow:
            refusal = f"{refusal}. Write those that the agent needs in `allow`"
        errors += _refused(f"{path}.allow", refusal)
    return errors


def _offered(use: AgentTools, plugins: Plugins, known: Mapping[str, KnownServer]) -> Sequence[str]:
    if use.plugin is not None:
        return [name for name, (plugin, _) in plugins.tools.items() if plugin == use.plugin]
    if use.agent is not None:
        return [use.agent]
    server = known.get(use.tool_server or "")
    return list(server.tools) if server is not None else []


def _own_rules(use: AgentTools, path: str, flaw: Flaw, *, usable: Sequence[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    # A misspelt name would narrow nothing, and nobody would see it.
    errors += _unused(f"{path}.requireApproval", [name for name in use.require_approval if name != "*"], usable)
    for number, rule in enumerate(use.arguments):
        place = f"{path}.arguments[{number}]"
        errors += _unused(f"{place}.tools", rule.tools, usable)
        if rule.schema is not None:
            errors += schema_flaw(f"{place}.schema", rule.schema)
        if rule.cel is not None and (wrong := flaw(rule.cel)):
            errors.append(FieldError(f"{place}.cel", "pattern", f"is no condition on `args` and `tool`: {wrong}"))
    return errors


def _check(agent: Agent, flaw: Flaw, plugins: Plugins, known: Mapping[str, KnownServer]) -> list[FieldError]:
    """What is wrong with the check that a revision has to pass."""
    if agent.spec.rollout is None:
        return []
    smoke, path = agent.spec.rollout.smoke, "spec.rollout.smoke"
    usable = [name for use in agent.spec.tools if use.agent is None for name in use.allow or _offered(use, plugins, known)]
    errors = _unused(f"{path}.allow", smoke.allow, usable, who="agent")
    if smoke.expect.cel is not None and (wrong := flaw(smoke.expect.cel)):
        errors.append(FieldError(f"{path}.expect.cel", "pattern", f"is no condition on `output`: {wrong}"))
    return errors


def _unused(path: str, names: Sequence[str], usable: Sequence[str], *, who: str = "entry") -> list[FieldError]:
    outside = sorted(set(names) - set(usable))
    if not outside:
        return []
    near = nearest(outside[0], usable)
    text = f"names {', '.join(outside)}, which the {who} does not bring"
    return [FieldError(path, "reference", text, f"did you mean `{near}`?" if near else None)]


def _entries(entries: Sequence[str] | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for number, entry in enumerate(entries or ()):
        try:
            parse_entry(entry)
        except Misconfigured as error:
            errors.append(FieldError(f"{path}[{number}]", "pattern", error.detail, error.hint or None))
    return errors
