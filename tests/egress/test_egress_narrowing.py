"""Lists that narrow what goes out: they hold for every client and every hop, in all tasks that the work begins, and never widen."""

import asyncio

import pytest

from egress.doubles import ListedResolver, Loopback, redirect
from hansa.egress.client import open_client
from hansa.egress.narrowing import narrowed
from hansa.egress.policy import EgressPolicy
from hansa.egress.refusal import EgressRefused, Rule
from hansa.errors import Misconfigured


def policy(server: Loopback) -> EgressPolicy:
    return EgressPolicy(allow_http=True, ports=(server.port,), allow=(f"127.0.0.0/8:{server.port}", "*.svc"), max_redirects=3)


async def refused(server: Loopback, url: str, *lists: tuple[str, ...]) -> Rule | None:
    """The rule by which a URL is refused under lists, one within the other; None: it is reached."""
    resolver = ListedResolver(api_test=[["127.0.0.1"]], deep_api_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
    async with open_client(policy(server), resolver) as client:
        try:
            with narrowed("a list", lists[0]), narrowed("another", lists[1] if len(lists) > 1 else None):
                await client.get(url.replace("PORT", str(server.port)))
        except EgressRefused as error:
            return error.rule
        return None


@pytest.mark.parametrize(
    "entries", [(), ("other.test",), ("*.api.test",), ("pi.test",), ("api.test:1",), ("127.0.0.1",), ("api.test.evil.test",)]
)
async def test_what_a_list_does_not_name_sees_no_connection(loopback: Loopback, entries: tuple[str, ...]) -> None:
    assert await refused(loopback, "http://api.test:PORT/", entries) is Rule.NOT_LISTED
    assert loopback.connections == 0


async def test_a_literal_address_is_named_by_a_network_alone(loopback: Loopback) -> None:
    assert await refused(loopback, "http://127.0.0.1:PORT/", ("api.test",)) is Rule.NOT_LISTED
    assert await refused(loopback, "http://127.0.0.1:PORT/", ("127.0.0.0/30",)) is None
    assert await refused(loopback, "http://[::ffff:127.0.0.1]:PORT/", ("10.0.0.0/8",)) is Rule.NOT_LISTED


async def test_a_list_opens_nothing_that_the_door_keeps_shut(loopback: Loopback) -> None:
    async with open_client(EgressPolicy(allow_http=True, ports=(loopback.port,)), ListedResolver(api_test=[["127.0.0.1"]])) as client:
        for url, rule in (
            (loopback.url, Rule.ADDRESS),
            (f"http://api.test:{loopback.port}/", Rule.ADDRESS),
            ("http://localhost/", Rule.RESERVED_NAME),
        ):
            with narrowed("a list", ("127.0.0.1", "api.test", "localhost")), pytest.raises(EgressRefused) as shut:
                await client.get(url)
            assert shut.value.rule is rule
    assert loopback.connections == 0


async def test_of_two_lists_both_hold(loopback: Loopback) -> None:
    assert await refused(loopback, "http://api.test:PORT/", ("*.test",), ("api.test",)) is None
    assert await refused(loopback, "http://api.test:PORT/", ("*.test",), ("other.test",)) is Rule.NOT_LISTED
    assert await refused(loopback, "http://api.test:PORT/", ("other.test",), ("api.test",)) is Rule.NOT_LISTED


async def test_every_hop_is_held_against_the_list(loopback: Loopback) -> None:
    loopback.answers["/"] = redirect(f"http://other.test:{loopback.port}/secret")
    assert await refused(loopback, "http://api.test:PORT/", ("api.test",)) is Rule.NOT_LISTED
    assert len(loopback.heads) == 1
    assert await refused(loopback, "http://api.test:PORT/", ("api.test", "other.test")) is None


async def test_a_list_goes_with_the_work_and_ends_with_it(loopback: Loopback) -> None:
    async with open_client(policy(loopback)) as client:

        async def ask() -> str:
            try:
                return (await client.get(f"{loopback.url}/")).text
            except EgressRefused as error:
                return error.rule

        with narrowed("a list", ("elsewhere.test",)):
            within = asyncio.create_task(ask())
            await asyncio.gather(*(asyncio.create_task(ask()) for _ in range(2)))
        beside = await ask()
        assert (await within, beside) == (Rule.NOT_LISTED, "hit")


async def test_the_refusal_names_the_list_and_keeps_the_path_to_itself(loopback: Loopback) -> None:
    async with open_client(policy(loopback)) as client:
        with narrowed("the tenant's list", ("a.test", "b.test")), pytest.raises(EgressRefused) as error:
            await client.get(f"{loopback.url}/?token=opensesame")
    assert error.value.detail == f"http://127.0.0.1:{loopback.port} is refused (not_listed): it is not on the tenant's list"
    assert error.value.hint == "Listed are: a.test, b.test."


def test_a_list_that_cannot_be_read_lets_nothing_begin() -> None:
    with pytest.raises(Misconfigured), narrowed("a list", ("127.1",)):
        pass
