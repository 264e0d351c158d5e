"""Objects that tests apply: a scripted model, and agents on it."""

from typing import Any

SCRIPTED: dict[str, Any] = {
    "apiVersion": "hansa.dev/v1alpha1",
    "kind": "ModelProvider",
    "metadata": {"name": "scripted"},
    "spec": {"plugin": "scripted", "models": [{"name": "echo", "aliases": ["scripted"]}]},
}


def agent(name: str, **spec: Any) -> dict[str, Any]:
    """A manifest of an agent on the scripted model."""
    base: dict[str, Any] = {"instructions": "Do as the script says.", "model": {"alias": "scripted"}}
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name}, "spec": {**base, **spec}}
