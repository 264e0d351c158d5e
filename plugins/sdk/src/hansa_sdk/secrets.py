"""What a plugin implements to keep the keys that encrypt secrets, or to read secrets that are kept elsewhere.

A key provider wraps the data key of each tenant with a key-encryption key that never leaves it. A secret source reads values that
another system keeps. Warning: nothing of a key or a value may appear in a text, an error or a log.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import httpx2
import msgspec


class SecretServices(msgspec.Struct, frozen=True):
    """What core lends: `http`, the egress client of the secrets (never make your own), and the operator's `HANSA_SECRETS_*` variables
    as `settings`, prefix cut, lower case."""

    http: httpx2.AsyncClient
    settings: Mapping[str, str]


class WrappedKey(msgspec.Struct, frozen=True):
    """A data key as it is stored. `key_id` names the key-encryption key, with its version, that wrapped it."""

    key_id: str
    data: bytes


class KeyProvider(Protocol):
    """Wraps data keys. `tenant` is an id that the answer should be bound to, where that is possible.

    All methods raise `SecretUnavailable` (worth a retry) or `SecretRefused` (not).
    """

    async def current(self) -> str:
        """Id of the key that `wrap` would use now; what another one wrapped should be rewrapped."""
        ...

    async def wrap(self, key: bytes, tenant: str) -> WrappedKey: ...

    async def unwrap(self, wrapped: WrappedKey, tenant: str) -> bytes:
        """The data key; those wrapped by earlier keys too, as long as they exist."""
        ...

    async def rewrap(self, wrapped: WrappedKey, tenant: str) -> WrappedKey:
        """The same data key, wrapped by the current key."""
        ...


class KeyProviderKind(msgspec.Struct, frozen=True):
    """A kind of key provider, chosen by `HANSA_SECRETS_KEK`; `open(services)` gives it as an async context manager."""

    name: str
    open: Callable[[SecretServices], AbstractAsyncContextManager[KeyProvider]]


class SecretSource(Protocol):
    """Reads secrets that another system keeps."""

    async def read(self, tenant: str, path: str) -> Mapping[str, str]:
        """The values at a path, by key; a single value has the key `value`.

        `tenant` is the tenant's name: a source must not let one tenant name what is another's. `path` is letters, digits, `.`, `_`, `-`
        and `/`, without `..`. Raises `SecretUnavailable` or `SecretRefused`.
        """
        ...


class SecretSourceKind(msgspec.Struct, frozen=True):
    """A kind of secret source, named by secrets that refer to it; `open(services)` gives it as an async context manager."""

    name: str
    open: Callable[[SecretServices], AbstractAsyncContextManager[SecretSource]]
