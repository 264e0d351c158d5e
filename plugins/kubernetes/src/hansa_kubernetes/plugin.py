"""Registers the secret source `kubernetes`."""

from hansa_kubernetes.source import open_source
from hansa_sdk import SecretSourceKind, hookimpl

HANSA_API_VERSION = 1


@hookimpl
def hansa_secret_sources() -> list[SecretSourceKind]:
    return [SecretSourceKind("kubernetes", open_source)]
