"""Whether what an object names is there: runtimes, plugins, tools, models. Says what is loaded and what would bring the rest."""

from collections.abc import Mapping, Sequence
from typing import Any

import jsonschema_rs

from hansa.apply.model import KnownServer
from hansa.errors import FieldError
from hansa.plugins.model import Plugins
from hansa.secrets.variables import Variables
from hansa_crds import Agent, AgentTools, Credentials, HansaObject, ModelChoice, ModelProvider, ToolServer
from hansa_crds.problem import nearest

PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)
LISTED = 30
"""Most names that a message lists."""


def unresolved(
    found: HansaObject, plugins: Plugins, providers: Sequence[ModelProvider], servers: Sequence[KnownServer], *, variables: Variables
) -> list[FieldError]:
    """Every reference of an object that leads nowhere. `servers` are at least those that the object names."""
    match found:
        case Agent():
            return [*_agent(found, plugins, providers), *_all_tools(found, plugins, {server.name: server for server in servers})]
        case ModelProvider():
            return [*_kind(found, plugins), *_variable(found.spec.credentials, variables)]
        case ToolServer():
            return _variable(found.spec.credentials, variables)
        case _:
            return []


def _variable(credentials: Credentials | None, variables: Variables) -> list[FieldError]:
    """Whether the object may have this variable sent anywhere."""
    refusal = variables.refusal(credentials.env) if credentials is not None and credentials.env is not None else ""
    return [FieldError("spec.credentials.env", "reference", refusal)] if refusal else []


def _agent(agent: Agent, plugins: Plugins, providers: Sequence[ModelProvider]) -> list[FieldError]:
    errors: list[FieldError] = []
    spec = agent.spec
    if spec.runtime.name not in plugins.runtimes:
        errors.append(_missing("spec.runtime.name", "runtime", spec.runtime.name, list(plugins.runtimes)))
    choices: list[tuple[str, ModelChoice]] = [("spec.model", spec.model)]
    choices.extend((f"spec.model.fallbacks[{number}]", choice) for number, choice in enumerate(spec.model.fallbacks))
    aliases = sorted({alias for provider in providers for model in provider.spec.models for alias in model.aliases})
    refs = sorted(f"{provider.metadata.name}/{model.name}" for provider in providers for model in provider.spec.models)
    for path, choice in choices:
        if choice.alias is not None and choice.alias not in aliases:
            errors.append(_no_model(f"{path}.alias", "alias", choice.alias, aliases))
        if choice.ref is not None and choice.ref not in refs:
            errors.append(_no_model(f"{path}.ref", "model", choice.ref, refs))
    if spec.output_schema is not None:
        errors += schema_flaw("spec.outputSchema", spec.output_schema)
    return errors


def schema_flaw(path: str, schema: dict[str, Any]) -> list[FieldError]:
    """Why a JSON Schema can judge nothing."""
    try:
        # Offline: a reference to another place is refused, never fetched, whatever its scheme.
        jsonschema_rs.validator_for(schema, offline=True, pattern_options=PATTERNS)
    except (jsonschema_rs.ValidationError, ValueError) as error:
        return [FieldError(path, "schema", f"is not a valid JSON Schema: {str(error).splitlines()[0]}")]
    return []


def _all_tools(agent: Agent, plugins: Plugins, servers: Mapping[str, KnownServer]) -> list[FieldError]:
    errors: list[FieldError] = []
    owners: dict[str, str] = {}
    for number, use in enumerate(agent.spec.tools):
        if use.agent is not None:
            continue  # looked up when it is called: agents may be applied in any order, and call each other
        path = f"spec.tools[{number}]"
        field, source = (
            (f"{path}.plugin", f"plugin {use.plugin!r}") if use.plugin else (f"{path}.toolServer", f"ToolServer {use.tool_server!r}")
        )
        offered, problem = _offered(field, use, plugins, servers)
        if problem is not None:
            errors.append(problem)
            continue
        errors.extend(
            FieldError(
                f"{path}.allow[{place}]",
                "reference",
                f"{source} brings no tool {name!r}; it brings: {_some(offered)}",
                _near(name, offered),
            )
            for place, name in enumerate(use.allow)
            if name not in offered
        )
        errors.extend(_secrets(path, use, plugins))
        for name in use.allow or offered:
            owner = owners.setdefault(name, source)
            if owner != source:
                text = f"{source} and {owner} both bring a tool {name!r}; leave it out of one of them: write the others in `allow`"
                errors.append(FieldError(field, "duplicate", text))
    return errors


def _secrets(path: str, use: AgentTools, plugins: Plugins) -> list[FieldError]:
    """Secrets that no tool of the entry asks for."""
    asked = sorted({each for plugin, tool in plugins.tools.values() if plugin == use.plugin for each in tool.secrets})
    return [
        FieldError(
            f"{path}.secrets.{name}",
            "reference",
            f"no tool of plugin {use.plugin!r} asks for a secret {name!r}; they ask for: {_some(asked)}",
            _near(name, asked),
        )
        for name in use.secrets
        if name not in asked
    ]


def _offered(field: str, use: AgentTools, plugins: Plugins, servers: Mapping[str, KnownServer]) -> tuple[list[str], FieldError | None]:
    """Names of the tools that an entry may choose from, or why there are none."""
    if use.plugin is not None:
        if use.plugin not in plugins.loaded():
            return [], _missing(field, "plugin", use.plugin, list(plugins.loaded()))
        return sorted(name for name, (plugin, _) in plugins.tools.items() if plugin == use.plugin), None
    server = servers.get(use.tool_server or "")
    if server is None:
        text = f"there is no ToolServer {use.tool_server!r}; apply it first, or together with the agent"
        return [], FieldError(field, "reference", text, _near(use.tool_server or "", list(servers)))
    if server.trouble:
        return [], FieldError(field, "reference", f"ToolServer {use.tool_server!r} can't be used: {server.trouble}")
    if not server.tools:
        return [], FieldError(field, "reference", f"ToolServer {use.tool_server!r} offers no tool that can be used")
    return sorted(server.tools), None


def _kind(provider: ModelProvider, plugins: Plugins) -> list[FieldError]:
    if provider.spec.plugin in plugins.providers:
        return []
    return [_missing("spec.plugin", "provider kind", provider.spec.plugin, list(plugins.providers))]


def _missing(path: str, what: str, name: str, loaded: list[str]) -> FieldError:
    return FieldError(
        path,
        "reference",
        f"no loaded plugin brings the {what} {name!r}; loaded: {_some(sorted(loaded))}. A package named hansa-{name} might bring it",
        _near(name, loaded),
    )


def _no_model(path: str, what: str, name: str, known: list[str]) -> FieldError:
    message = f"no ModelProvider offers the {what} {name!r}; offered: {_some(known)}. Apply a ModelProvider that has it"
    return FieldError(path, "reference", message, _near(name, known))


def _near(name: str, known: Sequence[str]) -> str | None:
    near = nearest(name, known)
    return f"did you mean `{near}`?" if near else None


def _some(names: Sequence[str]) -> str:
    """The names, or as many of them as someone might read."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more if names else "none"
