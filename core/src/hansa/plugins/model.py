"""What is known of a plugin and what all loaded plugins provide together."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from hansa_sdk import KeyProviderKind, ProviderKind, Runtime, SecretSourceKind, Tool


class PluginState(StrEnum):
    """Loaded; disabled by HANSA_PLUGINS; or failed with a reason."""

    LOADED = "loaded"
    DISABLED = "disabled"
    FAILED = "failed"


class PluginInfo(msgspec.Struct, frozen=True):
    """One entry point of the group `hansa.plugins` and what came of it."""

    name: str
    distribution: str
    version: str
    entry_point: str
    state: PluginState
    reason: str = ""
    tools: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    key_providers: tuple[str, ...] = ()
    secret_sources: tuple[str, ...] = ()


class Plugins(msgspec.Struct, frozen=True):
    """Everything that plugins brought: name -> (plugin, item)."""

    infos: tuple[PluginInfo, ...]
    tools: Mapping[str, tuple[str, Tool]]
    providers: Mapping[str, tuple[str, ProviderKind]]
    runtimes: Mapping[str, tuple[str, Runtime]]
    key_providers: Mapping[str, tuple[str, KeyProviderKind]] = {}
    secret_sources: Mapping[str, tuple[str, SecretSourceKind]] = {}

    def loaded(self) -> tuple[str, ...]:
        """Names of the plugins that work."""
        return tuple(info.name for info in self.infos if info.state is PluginState.LOADED)

    def brings(self, kind: str) -> str:
        """The plugin that brings a kind of provider; the kind's own name while none does."""
        return self.providers[kind][0] if kind in self.providers else kind
