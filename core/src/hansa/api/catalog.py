"""/v1/tools, /v1/models and /v1/plugins: what is there to build agents from."""

from typing import Any

import msgspec
from litestar import Response, get

from hansa.api import answers, requests
from hansa.api.services import STANDING, UNPLACED, AnyRequest, services
from hansa.auth.model import Principal
from hansa.plugins.model import PluginInfo
from hansa_crds import ModelProvider
from hansa_sdk import Tool


class ToolView(msgspec.Struct, frozen=True):
    """A tool that a loaded plugin brings. `secrets`: what it asks for, for `spec.tools[].secrets` of an agent."""

    name: str
    plugin: str
    description: str
    effect: str
    parameters: dict[str, Any]
    secrets: tuple[str, ...]


class ModelView(msgspec.Struct, frozen=True):
    """A model that a ModelProvider offers; `reason` says why it is not usable."""

    ref: str
    provider: str
    name: str
    aliases: tuple[str, ...]
    plugin: str
    usable: bool
    reason: str


class PluginView(msgspec.Struct, frozen=True):
    """A plugin and what came of it: loaded, disabled or failed with a reason."""

    name: str
    distribution: str
    version: str
    state: str
    reason: str
    provides: dict[str, tuple[str, ...]]


@get("/v1/tools", opt={"permission": "plugins:read", "within": UNPLACED, "answer": list[ToolView]})
async def list_tools(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Tools of all loaded plugins, by name."""
    tools = services(request).plugins.tools.items()
    return _page(request, principal, {(name,): _tool(name, plugin, tool) for name, (plugin, tool) in tools})


@get("/v1/models", opt={"permission": "plugins:read", "within": STANDING, "answer": list[ModelView]})
async def list_models(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Models of the tenant's ModelProviders, and whether they can be used from here."""
    gateway, names = services(request).gateway, await services(request).secrets.names(principal.tenant_id)
    models: dict[tuple[str, ...], ModelView] = {}
    for text in await services(request).objects.manifests(principal, "ModelProvider"):
        provider = msgspec.json.decode(text, type=ModelProvider)
        if not principal.may_in("plugins:read", provider.metadata.namespace or principal.tenant):
            continue
        name, reason = provider.metadata.name, gateway.usable(provider, names)
        for model in provider.spec.models:
            ref = f"{name}/{model.name}"
            models[name, model.name] = ModelView(ref, name, model.name, model.aliases, provider.spec.plugin, not reason, reason)
    return _page(request, principal, models)


@get("/v1/plugins", opt={"permission": "plugins:read", "within": UNPLACED, "answer": list[PluginView]})
async def list_plugins(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Every installed plugin, also those that failed, with the reason."""
    return _page(request, principal, {(info.name, info.distribution): _view(info) for info in services(request).plugins.infos})


def _tool(name: str, plugin: str, tool: Tool) -> ToolView:
    return ToolView(name, plugin, tool.description, tool.effect.value, tool.parameters, tool.secrets)


def _view(info: PluginInfo) -> PluginView:
    provides = {
        "tools": info.tools,
        "providers": info.providers,
        "runtimes": info.runtimes,
        "key_providers": info.key_providers,
        "secret_sources": info.secret_sources,
    }
    return PluginView(info.name, info.distribution, info.version, info.state.value, info.reason, provides)


def _page(request: AnyRequest, principal: Principal, views: dict[tuple[str, ...], Any]) -> Response[bytes]:
    """One page of what is at hand, in the order of its keys."""
    after, limit = tuple(requests.cursor(request, principal) or ()), requests.limit(request)
    keys = [key for key in sorted(views) if key > after]
    data = [msgspec.json.encode(views[key]).decode() for key in keys[:limit]]
    return answers.page(request, principal, data, keys[limit - 1] if len(keys) > limit else None)


HANDLERS = (list_tools, list_models, list_plugins)
