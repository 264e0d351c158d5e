"""Resolving and connecting: the network backend under the HTTP client, where a name turns into the address that is used.

Must not know HTTP. The name is resolved once, every answer is judged, and the connection goes to an answer that was judged:
a second look-up could answer otherwise. TLS above still asks for the name, since only the TCP address is replaced.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import cast

import httpcore2

from hansa.egress.judge import judge_answers
from hansa.egress.policy import EgressPolicy

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a host name as texts, best first. Raises OSError when there are none."""

MAX_ATTEMPTS = 4
"""Addresses of one name that are tried; who has more is served by the first ones."""


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """The resolver of the operating system."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in answers))


class JudgedDialer(httpcore2.AsyncNetworkBackend):
    """Connects to judged addresses only."""

    def __init__(self, policy: EgressPolicy, resolver: Resolver) -> None:
        self._policy = policy
        self._resolver = resolver
        self._network = cast(httpcore2.AsyncNetworkBackend, httpcore2.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Raises `EgressRefused`, `httpcore2.ConnectError` or `httpcore2.ConnectTimeout`; `timeout` covers all of it, in seconds."""
        allowance = self._policy.connect_timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(allowance) as deadline:
                name = host.lower().removesuffix(".")
                addresses = judge_answers(name, port, answers=await self._answers(host, port), policy=self._policy)
                return await self._first_open(addresses[:MAX_ATTEMPTS], port, deadline, socket_options)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"no connection to {host}:{port} within {allowance:g} s") from error

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _answers(self, host: str, port: int) -> Sequence[str]:
        if _is_address(host):
            return [host]
        try:
            answers = await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"the name {host} can't be resolved: {error}") from error
        if not answers:
            raise httpcore2.ConnectError(f"the name {host} has no address")
        return answers

    async def _first_open(
        self, addresses: Sequence[str], port: int, deadline: asyncio.Timeout, socket_options: Iterable[httpcore2.SOCKET_OPTION] | None
    ) -> httpcore2.AsyncNetworkStream:
        failure: httpcore2.NetworkError | httpcore2.TimeoutException | None = None
        for tried, address in enumerate(addresses):
            # A silent address gets its share of the time left, so that the next one has a chance.
            left = max(0.0, (deadline.when() or 0.0) - asyncio.get_running_loop().time())
            share = left / (len(addresses) - tried)
            try:
                return await self._network.connect_tcp(address, port, timeout=share, socket_options=socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore2.ConnectError("no address to connect to")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
