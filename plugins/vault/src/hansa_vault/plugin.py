"""Registers the key provider `vault` (transit) and the secret source `vault` (KV version 2); Vault's client is imported late."""

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hansa_sdk import KeyProvider, KeyProviderKind, SecretServices, SecretSource, SecretSourceKind, hookimpl

HANSA_API_VERSION = 1


@asynccontextmanager
async def open_transit(services: SecretServices) -> AsyncIterator[KeyProvider]:
    """Data keys wrapped by Vault's transit engine."""
    # By name: a start must not pay for a client that nobody opens.
    yield importlib.import_module("hansa_vault.engines").Transit(services)


@asynccontextmanager
async def open_kv(services: SecretServices) -> AsyncIterator[SecretSource]:
    """Secrets in Vault's KV engine."""
    yield importlib.import_module("hansa_vault.engines").KeyValue(services)


@hookimpl
def hansa_key_providers() -> list[KeyProviderKind]:
    return [KeyProviderKind("vault", open_transit)]


@hookimpl
def hansa_secret_sources() -> list[SecretSourceKind]:
    return [SecretSourceKind("vault", open_kv)]
