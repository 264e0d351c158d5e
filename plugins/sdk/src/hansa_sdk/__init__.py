"""The public face of the SDK: what a plugin imports.

Knows nothing of Hansa's core: neither database, nor messaging, nor HTTP server. The names listed in `__all__` are the
contract; everything else may change between minor versions.
"""

from hansa_sdk.cage import Cage, Caged
from hansa_sdk.errors import (
    CallFailed,
    PluginError,
    ProviderError,
    ProviderRefused,
    ProviderUnavailable,
    RunFailed,
    SecretError,
    SecretRefused,
    SecretUnavailable,
    ToolFailed,
    WaitExpired,
)
from hansa_sdk.hooks import API_VERSION, HookSpecs, hookimpl, hookspec
from hansa_sdk.llm import (
    Completion,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    Message,
    ProviderConfig,
    ProviderKind,
    ProviderServices,
    Role,
    StopReason,
    TextSink,
    ToolCall,
    ToolSpec,
    Usage,
)
from hansa_sdk.runtime import AgentDefinition, Example, Limits, RunContext, Runtime, ToolOutcome
from hansa_sdk.secrets import KeyProvider, KeyProviderKind, SecretServices, SecretSource, SecretSourceKind, WrappedKey
from hansa_sdk.tools import Effect, Tool, ToolContext, tool

__all__ = [
    "API_VERSION",
    "AgentDefinition",
    "Cage",
    "Caged",
    "CallFailed",
    "Completion",
    "Effect",
    "Example",
    "HookSpecs",
    "KeyProvider",
    "KeyProviderKind",
    "LLMProvider",
    "LLMRequest",
    "LLMResponse",
    "Limits",
    "Message",
    "PluginError",
    "ProviderConfig",
    "ProviderError",
    "ProviderKind",
    "ProviderRefused",
    "ProviderServices",
    "ProviderUnavailable",
    "Role",
    "RunContext",
    "RunFailed",
    "Runtime",
    "SecretError",
    "SecretRefused",
    "SecretServices",
    "SecretSource",
    "SecretSourceKind",
    "SecretUnavailable",
    "StopReason",
    "TextSink",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolFailed",
    "ToolOutcome",
    "ToolSpec",
    "Usage",
    "WaitExpired",
    "WrappedKey",
    "hookimpl",
    "hookspec",
    "tool",
]
