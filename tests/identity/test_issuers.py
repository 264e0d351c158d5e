"""Keys of issuers are fetched seldom and by one for all, survive an issuer that is away, and follow one that changes them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from doubles.oidc_provider import OidcProvider
from hansa.auth import tokens
from hansa.auth.issuers import IssuerKeys, Place, policy
from hansa.egress.client import open_client
from hansa.errors import Unauthenticated, Unavailable

MINUTE, HOUR = 60.0, 3600.0


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def keys(provider: OidcProvider, time: Time) -> AsyncIterator[IssuerKeys]:
    client = open_client(policy((provider.url.removeprefix("http://"),)))
    async with IssuerKeys(client, monotonic=time, patience=2.0) as found:
        yield found


@pytest.fixture
def place(provider: OidcProvider) -> Place:
    return Place(provider.url)


def kid(provider: OidcProvider) -> str:
    """The name of the key that the provider signs with now."""
    return tokens.read(provider.mint()).header.kid


async def fetches(provider: OidcProvider, keys: IssuerKeys, place: Place, *names: str) -> int:
    """How often the provider is asked while these keys are looked for, by many at once."""
    before = provider.facts()["fetches"]
    for name in names:
        await asyncio.gather(*(keys.find(place, name) for _ in range(20)), return_exceptions=True)
    return provider.facts()["fetches"] - before


async def test_many_that_want_a_key_fetch_it_once(provider: OidcProvider, keys: IssuerKeys, place: Place, time: Time) -> None:
    name = kid(provider)
    assert await fetches(provider, keys, place, name, name) == 1
    time.now += 7 * MINUTE
    assert await fetches(provider, keys, place, name) == 0
    time.now += 4 * MINUTE
    assert await fetches(provider, keys, place, name) == 1


async def test_keys_are_renewed_before_anybody_waits_for_it(provider: OidcProvider, keys: IssuerKeys, place: Place, time: Time) -> None:
    name = kid(provider)
    await keys.find(place, name)
    provider.control(mode="slow")
    time.now += 9 * MINUTE
    async with asyncio.timeout(1):
        await keys.find(place, name)


async def test_an_unknown_key_is_looked_for_once_a_minute(provider: OidcProvider, keys: IssuerKeys, place: Place, time: Time) -> None:
    await keys.find(place, kid(provider))
    assert await fetches(provider, keys, place, "made-up", "made-up", "another") == 1
    with pytest.raises(Unauthenticated, match="kid"):
        await keys.find(place, "made-up")
    provider.control(rotate="EdDSA")
    with pytest.raises(Unauthenticated):
        await keys.find(place, kid(provider))
    time.now += MINUTE
    assert (await keys.find(place, kid(provider))).names == {"EdDSA", "Ed25519"}


async def test_a_key_that_its_issuer_takes_back_is_good_for_ten_minutes(
    provider: OidcProvider, keys: IssuerKeys, place: Place, time: Time
) -> None:
    old = kid(provider)
    await keys.find(place, old)
    provider.control(rotate="ES256", keep=False)
    time.now += 10 * MINUTE
    with pytest.raises(Unauthenticated):
        await keys.find(place, old)
    await keys.find(place, kid(provider))


@pytest.mark.parametrize("mode", ["down", "garbage", "impostor", "slow"])
async def test_known_keys_are_good_for_a_day_while_the_issuer_is_away(
    provider: OidcProvider, keys: IssuerKeys, place: Place, time: Time, mode: str
) -> None:
    name = kid(provider)
    await keys.find(place, name)
    provider.control(mode=mode)
    time.now += HOUR
    await keys.find(place, name)
    assert await fetches(provider, keys, place, name) == 0
    with pytest.raises(Unavailable):
        await keys.find(place, "made-up")
    time.now += 23 * HOUR
    with pytest.raises(Unavailable):
        await keys.find(place, name)
    provider.control(mode="ok")
    time.now += MINUTE
    await keys.find(place, name)


@pytest.mark.parametrize("mode", ["down", "garbage", "impostor"])
async def test_without_its_keys_nothing_of_an_issuer_is_believed(
    provider: OidcProvider, keys: IssuerKeys, place: Place, time: Time, mode: str
) -> None:
    provider.control(mode=mode)
    with pytest.raises(Unavailable) as away:
        await keys.find(place, kid(provider))
    assert provider.url not in away.value.detail
    provider.control(mode="ok")
    time.now += 5
    await keys.find(place, kid(provider))


async def test_a_token_that_names_no_key_is_only_that_of_an_only_key(
    provider: OidcProvider, keys: IssuerKeys, place: Place, time: Time
) -> None:
    assert (await keys.find(place, "")).names == {"ES256"}
    provider.control(rotate="ES256")
    time.now += 10 * MINUTE
    with pytest.raises(Unauthenticated):
        await keys.find(place, "")


async def test_keys_are_fetched_through_the_door(provider: OidcProvider, place: Place) -> None:
    before = provider.facts()["fetches"]
    async with IssuerKeys(open_client(policy(()))) as keys:
        with pytest.raises(Unavailable):
            await keys.find(place, kid(provider))
    assert provider.facts()["fetches"] == before
