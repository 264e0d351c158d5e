"""Registers the key provider `file` and the secret source `folder`."""

from hansa_keyfile.folder import open_folder
from hansa_keyfile.keys import open_keys
from hansa_sdk import KeyProviderKind, SecretSourceKind, hookimpl

HANSA_API_VERSION = 1


@hookimpl
def hansa_key_providers() -> list[KeyProviderKind]:
    return [KeyProviderKind("file", open_keys)]


@hookimpl
def hansa_secret_sources() -> list[SecretSourceKind]:
    return [SecretSourceKind("folder", open_folder)]
