"""Tries, as one tenant, to reach another one and the platform over NATS, with all that its account allows: the wall is the account.

Each side speaks on every subject of a list, and listens; what crosses is a leak. That a silent wall is a wall and no broken probe is shown
by what must cross: the tenant's own slice.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from hansa import ids
from hansa.bus import subjects
from hansa.bus.accounts import Accounts, logging_in
from hansa.bus.connection import SteadyClient, tls
from hansa.bus.keys import Key
from hansa.errors import Unavailable
from hansa.settings import NatsSettings

ASK_SECONDS = 0.25
CONNECT_SECONDS = 5.0
EVENT = "hansa-probe"
SPEAKER = "Hansa-Probe"


class Reach(msgspec.Struct, frozen=True):
    """What a probe found: how many ways were tried; each that led to another's, in words; why the probe itself can't be believed."""

    probes: int
    leaks: tuple[str, ...]
    broken: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether it was tried and nothing was reached."""
        return not self.leaks and not self.broken


async def probe(accounts: Accounts, a: UUID, b: UUID) -> Reach:
    """As tenant `a`, try to reach tenant `b`, the platform and the server's own account. Takes a third of a second and changes nothing.
    Raises `Unavailable` when NATS is away or lets one of them in no more.
    """
    operator, server, session = accounts.operator, accounts.server, ids.new_id()
    strangers = (accounts.public(b), operator.platform.public)
    async with AsyncExitStack() as opened:
        as_a = await opened.enter_async_context(_party(server, operator.account(a), "a", strangers))
        await as_a.listen(">")  # before the others come, of whom the server may tell
        as_b = await opened.enter_async_context(_party(server, operator.account(b), "b", ()))
        platform = await opened.enter_async_context(_party(server, operator.platform, "the platform", ()))
        closed, asked = _closed(accounts, b, session), subjects.server_services(strangers[0], subjects.messages_queue(accounts.region))
        event, sent = subjects.own_event(EVENT), subjects.participant(accounts.region, accounts.public(a), f"event.{EVENT}")
        news, said = subjects.own_news(session), subjects.session_live(accounts.region, a, session)
        await as_b.listen(">")
        for subject in (*closed, sent):
            await platform.listen(subject)
        for subject, payload in closed.items():
            await platform.say(subject, payload)
            await as_b.say(subject, payload)
            await as_a.say(subject, payload)
        await as_b.say(event)
        await as_a.say(event)
        await platform.say(said, b"{}")
        answers = await asyncio.gather(*(as_a.ask(subject) for subject in (*closed, *asked)))
    leaks = [f"tenant a hears {who} on {subject}" for subject, who in as_a.heard if (subject, who) != (news, "the platform")]
    leaks += [f"tenant b hears {who} on {subject}" for subject, who in as_b.heard if who == "a"]
    leaks += [f"the platform hears {who} on {subject}" for subject, who in platform.heard if who == "a" and subject != sent]
    for subject, answer in zip((*closed, *asked), answers, strict=True):
        if any(stranger.encode() in answer for stranger in strangers) or (answer and not asked.get(subject, False)):
            leaks.append(f"tenant a is answered on {subject}")
    broken = [] if (news, "the platform") in as_a.heard else [f"tenant a does not hear its own {news}"]
    broken += [] if (sent, "a") in platform.heard else [f"the platform does not hear tenant a on {sent}"]
    return Reach(4 * len(closed) + len(asked), tuple(sorted(set(leaks))), tuple(broken))


def _closed(accounts: Accounts, b: UUID, session: UUID) -> dict[str, bytes]:
    """Subjects of the platform and of b that no other tenant may reach; each with something to say there that does no harm."""
    region, key = accounts.region, accounts.public(b)
    nothing = msgspec.json.encode({"tenant_id": b, "id": session})
    return {
        subjects.session_live(region, b, session): b"{}",
        subjects.participant(region, key, f"event.{EVENT}"): b"",
        subjects.participant(region, key, f"session.{session}.{EVENT}"): b"",
        subjects.runs_ready(region): b"",
        subjects.runs_told(region): f"look {session}".encode(),
        subjects.keys_changed(region): b"",
        subjects.messages_ready(region): b"",
        subjects.messages_sent(region, b.hex): nothing,
    }


class _Party:
    """One side. `heard`: on which subject, and who said it. Use `_party`."""

    def __init__(self, client: Client, name: str, strangers: tuple[str, ...]) -> None:
        self._client: Any = client  # its stubs leave options untyped
        self._name = name
        self._strangers = [stranger.encode() for stranger in strangers]
        self.heard = set[tuple[str, str]]()

    async def listen(self, subject: str) -> None:
        async def received(message: Msg) -> None:
            who = (message.headers or {}).get(SPEAKER)
            if who is not None and who != self._name:
                self.heard.add((message.subject, who))
            elif message.subject.startswith(subjects.SERVER) and any(stranger in message.data for stranger in self._strangers):
                self.heard.add((message.subject, "the server about others"))

        await self._client.subscribe(subject, cb=received)
        await self._client.flush()

    async def say(self, subject: str, payload: bytes = b"") -> None:
        await self._client.publish(subject, payload, headers={SPEAKER: self._name})
        await self._client.flush()

    async def ask(self, subject: str) -> bytes:
        """The answer, empty if there is none, or an error."""
        try:
            answer: bytes = (await self._client.request(subject, b"", timeout=ASK_SECONDS, headers={SPEAKER: self._name})).data
        except (NatsError, TimeoutError):
            return b""
        return b"" if b'"error":' in answer else answer


@asynccontextmanager
async def _party(server: NatsSettings, key: Key, name: str, strangers: tuple[str, ...]) -> AsyncIterator[_Party]:
    client: Any = SteadyClient()
    told: list[str] = []

    async def failed(error: Exception) -> None:
        told.append(str(error))

    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            options = {**logging_in(key, name), "tls": tls(server)}
            await client.connect(server.url, name="hansa-probe", allow_reconnect=False, error_cb=failed, **options)
        yield _Party(client, name, strangers)
    except (NatsError, OSError, TimeoutError) as error:
        raise Unavailable(f"{name} can't be probed over NATS: {(told or [str(error)])[0]}", retry_after=1.0) from error
    finally:
        await client.close()
