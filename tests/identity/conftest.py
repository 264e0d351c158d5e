"""OpenID providers, and a control plane that may fetch their keys."""

from collections.abc import AsyncIterator, Iterator

import pytest

from api.conftest import echo, keys, other
from doubles.oidc_provider import OidcProvider, oidc_provider
from identity.place import Town
from stack import Process, Stack, free_port


@pytest.fixture(scope="session")
def own_provider() -> Iterator[OidcProvider]:
    """A provider whose keys come and go."""
    with oidc_provider(free_port()) as found:
        yield found


@pytest.fixture(scope="session")
def shared_provider() -> Iterator[OidcProvider]:
    """A provider that keeps its key."""
    with oidc_provider(free_port()) as found:
        yield found


@pytest.fixture
def provider(own_provider: OidcProvider) -> Iterator[OidcProvider]:
    """A provider with one new key; whatever a test told it is over with the test."""
    own_provider.control(mode="ok", lifetime=300, rotate="ES256", keep=False)
    yield own_provider
    own_provider.control(mode="ok")


@pytest.fixture(scope="session")
def doorway(stack: Stack, shared_provider: OidcProvider, own_provider: OidcProvider) -> Process:
    """A control plane that may reach both."""
    allowed = ",".join(each.url.removeprefix("http://") for each in (shared_provider, own_provider))
    return stack.serve(HANSA_EGRESS_ISSUERS_ALLOW=allowed)


@pytest.fixture
async def town(stack: Stack, doorway: Process, shared_provider: OidcProvider) -> AsyncIterator[Town]:
    """Where tenants believe the provider that keeps its key."""
    found = Town(stack, doorway, shared_provider)
    async with found.client:
        yield found


__all__ = ["echo", "keys", "other"]
