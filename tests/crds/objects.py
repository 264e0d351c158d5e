"""Objects that are right, to be made wrong by tests. Each call gives fresh data."""

from typing import Any

API_VERSION = "hansa.dev/v1alpha1"


def agent(**spec: Any) -> dict[str, Any]:
    """An agent that uses every field."""
    full: dict[str, Any] = {
        "description": "Sorts reviews.",
        "instructions": "Say how the review feels.",
        "examples": [{"input": "a joy", "output": {"sentiment": "positive"}}],
        "inputTemplate": "Review: {input}",
        "model": {"alias": "small", "params": {"temperature": 0, "maxTokens": 64}, "fallbacks": [{"ref": "other/big:7b"}]},
        "runtime": {"name": "loop", "config": {}},
        "tools": [{"plugin": "clock", "allow": ["now"]}, {"toolServer": "search"}],
        "limits": {"turns": 3, "tokens": 1000, "timeoutSeconds": 60},
        "outputSchema": {"type": "object", "properties": {"sentiment": {"enum": ["positive", "negative"]}}},
        "suspend": False,
    }
    return _object("Agent", {**full, **spec}, namespace="default")


def tenant(**spec: Any) -> dict[str, Any]:
    """A tenant."""
    return _object("Tenant", {"displayName": "Baltic Wool", "suspend": False, **spec})


def region(**spec: Any) -> dict[str, Any]:
    """A region."""
    return _object("Region", {"displayName": "North", "cordoned": True, **spec})


def model_provider(**spec: Any) -> dict[str, Any]:
    """A model provider that uses every field."""
    full: dict[str, Any] = {
        "plugin": "openai",
        "endpoint": "https://models.example.org/v1",
        "credentials": {"env": "MODELS_KEY"},
        "models": [{"name": "org/small-1", "aliases": ["small", "fast"]}, {"name": "big"}],
        "maxConcurrency": 4,
    }
    return _object("ModelProvider", {**full, **spec}, namespace="default")


def tool_server(**spec: Any) -> dict[str, Any]:
    """A tool server that uses every field."""
    full: dict[str, Any] = {
        "endpoint": "http://tools.example.org:8080/mcp",
        "credentials": {"env": "TOOLS_TOKEN"},
        "allow": ["search", "fetch.page"],
        "effects": {"search": "read", "fetch.page": "idempotent"},
    }
    return _object("ToolServer", {**full, **spec}, namespace="default")


ALL = (agent, tenant, region, model_provider, tool_server)


def _object(kind: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    labels = {"example.org/team": "wool"}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": "one", "labels": labels, **metadata}, "spec": spec}
