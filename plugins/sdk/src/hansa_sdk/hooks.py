"""The hooks of Hansa, found by entry point group `hansa.plugins` and called through pluggy.

Hooks only register, synchronously; what they register has the async methods. A plugin module declares
`HANSA_API_VERSION = 1` and implements any of the hooks below with `@hookimpl`.
"""

import pluggy

from hansa_sdk.llm import ProviderKind
from hansa_sdk.runtime import Runtime
from hansa_sdk.secrets import KeyProviderKind, SecretSourceKind
from hansa_sdk.tools import Tool

API_VERSION = 1
"""The version of these hooks; a plugin made for another one is refused by name."""

hookspec = pluggy.HookspecMarker("hansa")
hookimpl = pluggy.HookimplMarker("hansa")


class HookSpecs:
    """Every hook a plugin can implement."""

    @hookspec
    def hansa_tools(self) -> list[Tool]:
        """Give the tools this plugin brings; names are unique over all plugins."""
        return []

    @hookspec
    def hansa_llm_providers(self) -> list[ProviderKind]:
        """Give the kinds of LLM provider this plugin brings."""
        return []

    @hookspec
    def hansa_runtimes(self) -> list[Runtime]:
        """Give the agent runtimes this plugin brings."""
        return []

    @hookspec
    def hansa_key_providers(self) -> list[KeyProviderKind]:
        """Give the kinds of key provider this plugin brings."""
        return []

    @hookspec
    def hansa_secret_sources(self) -> list[SecretSourceKind]:
        """Give the kinds of secret source this plugin brings."""
        return []
