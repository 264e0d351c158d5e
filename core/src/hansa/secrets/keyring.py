"""The key providers and secret sources of a process: opened when first used, asked with a deadline, their failures told in one way.

Must not know tenants' rows nor any vendor.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import msgspec

from hansa.secrets.failures import SecretsAway, SecretsRefused
from hansa_sdk import (
    KeyProvider,
    KeyProviderKind,
    SecretRefused,
    SecretServices,
    SecretSource,
    SecretSourceKind,
    SecretUnavailable,
    WrappedKey,
)

T = TypeVar("T")
ASK_SECONDS = 10.0
HINT = "See docs/secrets.md: HANSA_SECRETS_KEK names the key provider; `hansa plugins` lists those that are loaded."


class StoredKey(msgspec.Struct, frozen=True):
    """A wrapped data key as it lies in the database: `kek` is the key provider's name, `key_id` that provider's key."""

    kek: str
    key_id: str
    wrapped: bytes


class Keyring:
    """What wraps data keys and reads outside values. Use `open_keyring`. Methods raise `SecretsAway` or `SecretsRefused`."""

    def __init__(
        self,
        providers: Mapping[str, tuple[str, KeyProviderKind]],
        sources: Mapping[str, tuple[str, SecretSourceKind]],
        *,
        services: SecretServices,
        current: str,
        stack: AsyncExitStack,
    ) -> None:
        self._kinds: dict[str, Mapping[str, tuple[str, Any]]] = {"key provider": providers, "secret source": sources}
        self._services = services
        self._current = current
        self._stack = stack
        self._opened: dict[tuple[str, str], Any] = {}
        self._opening = asyncio.Lock()

    async def current(self) -> tuple[str, str]:
        """The name of the key provider, and the id of its key, that wrap new data keys now."""
        provider = await self._provider(self._current)
        return self._current, await self._asked(self._current, provider.current())

    async def wrap(self, key: bytes, tenant: str) -> StoredKey:
        """Wrap a new data key."""
        provider = await self._provider(self._current)
        return _stored(self._current, await self._asked(self._current, provider.wrap(key, tenant)))

    async def unwrap(self, stored: StoredKey, tenant: str) -> bytes:
        """A data key, by whichever provider wrapped it."""
        provider = await self._provider(stored.kek)
        return await self._asked(stored.kek, provider.unwrap(WrappedKey(stored.key_id, stored.wrapped), tenant))

    async def rewrap(self, stored: StoredKey, tenant: str) -> StoredKey:
        """The same data key wrapped by the current key of the current provider."""
        if stored.kek != self._current:
            return await self.wrap(await self.unwrap(stored, tenant), tenant)
        provider = await self._provider(self._current)
        return _stored(self._current, await self._asked(self._current, provider.rewrap(WrappedKey(stored.key_id, stored.wrapped), tenant)))

    async def read(self, source: str, tenant: str, path: str) -> Mapping[str, str]:
        """The values that a source has at a path."""
        opened: SecretSource = await self._open("secret source", source)
        return await self._asked(source, opened.read(tenant, path))

    def sources(self) -> list[str]:
        """Names of the secret sources that are loaded."""
        return sorted(self._kinds["secret source"])

    async def _provider(self, name: str) -> KeyProvider:
        return await self._open("key provider", name)

    async def _open(self, what: str, name: str) -> Any:
        known = self._kinds[what].get(name)
        if known is None:
            loaded = ", ".join(sorted(self._kinds[what])) or "none"
            raise SecretsRefused(f"no loaded plugin brings the {what} {name!r} (loaded: {loaded})", hint=HINT)
        async with self._opening:
            if (what, name) not in self._opened:
                opening = self._stack.enter_async_context(known[1].open(self._services))
                self._opened[what, name] = await self._asked(name, opening)
            return self._opened[what, name]

    async def _asked(self, name: str, asking: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await asking
        except TimeoutError as error:
            raise SecretsAway(f"{name} did not answer within {ASK_SECONDS:g} s", hint=_AWAY, retry_after=5.0) from error
        except SecretUnavailable as error:
            hint = f"{error.hint} {_AWAY}".strip()
            raise SecretsAway(f"{name}: {error.detail}", hint=hint, retry_after=error.retry_after or 5.0) from error
        except SecretRefused as error:
            raise SecretsRefused(f"{name}: {error.detail}", hint=error.hint or HINT) from error
        # A plugin is a stranger's code, and its defect must not show what it was working on.
        except Exception as error:
            raise SecretsRefused(f"the plugin behind {name} broke: {type(error).__name__}", hint=HINT) from None


_AWAY = "Nothing is lost: runs wait, requests may be sent again."


def _stored(name: str, wrapped: WrappedKey) -> StoredKey:
    return StoredKey(name, wrapped.key_id, wrapped.data)


@asynccontextmanager
async def open_keyring(
    providers: Mapping[str, tuple[str, KeyProviderKind]],
    sources: Mapping[str, tuple[str, SecretSourceKind]],
    *,
    services: SecretServices,
    current: str,
) -> AsyncIterator[Keyring]:
    """A keyring whose providers and sources are closed at the end. `current`: the name of the one that wraps new keys."""
    async with AsyncExitStack() as stack:
        yield Keyring(providers, sources, services=services, current=current, stack=stack)
