"""Connections through the door for what speaks for itself: a program in a cage that encrypts with its own library.

What it says is not read. Where it goes is judged as for every request: the URL, every address behind the name, the lists in force.
"""

from typing import Protocol

from hansa.egress.dial import JudgedDialer, Resolver, system_resolver
from hansa.egress.judge import judge_url
from hansa.egress.narrowing import judge_lists
from hansa.egress.policy import EgressPolicy


class Stream(Protocol):
    """An open connection. `read` gives nothing at its end; both raise `httpcore2` errors when it breaks, or after `timeout` seconds."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes: ...

    async def write(self, buffer: bytes, timeout: float | None = None) -> None: ...

    async def aclose(self) -> None: ...


class Tunnels:
    """Opens connections under a policy."""

    def __init__(self, policy: EgressPolicy, resolver: Resolver | None = None) -> None:
        self.policy = policy
        self._dialer = JudgedDialer(policy, resolver or system_resolver)

    async def connect(self, origin: str) -> Stream:
        """Connect to an origin (`https://host:port`). Raises `EgressRefused` or an error of `httpcore2`."""
        target = judge_url(origin, self.policy)
        judge_lists(target)
        return await self._dialer.connect_tcp(target.host, target.port)
