"""Accounts on the server: made, changed and removed through its system account, while it runs. One connection, which mends itself.

The server keeps what it was told last, and may lose it with its disk: whoever uses this looks again from time to time.
"""

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from hansa import clock
from hansa.bus import claims, subjects
from hansa.bus.claims import Account, Rights
from hansa.bus.connection import connected
from hansa.bus.keys import Key, Kind, Operator, new_key, read_operator
from hansa.errors import Unavailable
from hansa.settings import NatsSettings

ANSWER_SECONDS = 2.0
SHA256_BYTES = 32


class Refused(Exception):
    """The server does not take what it was told; says why."""


class _Said(msgspec.Struct):
    description: str = ""


class _Answer(msgspec.Struct):
    data: Any = None
    error: _Said | None = None


class Login(msgspec.Struct, frozen=True):
    """What a program of a tenant logs in with. `user`: the public key by which it is known; `text`: the credentials file; `until`: seconds
    since 1970 when it ends."""

    account: str
    user: str
    text: str
    until: int


class Accounts:
    """Use `open_accounts`. Every method raises `Unavailable` when NATS is away, and `Refused`."""

    def __init__(self, operator: Operator, client: Client, region: str, *, server: NatsSettings, back: asyncio.Event) -> None:
        """`server`: where it is and how it is spoken to; `back` is set whenever it has been away and is back, perhaps without its disk."""
        self._client = client
        self.operator = operator
        self.region = region
        self.server = server
        self.back = back

    @property
    def url(self) -> str:
        """Where the server is."""
        return self.server.url

    def public(self, tenant_id: UUID) -> str:
        """The public key, which is the name, of a tenant's account."""
        return self.operator.account(tenant_id).public

    def token(self, account: Account) -> str:
        """What the server is to know of a tenant's account."""
        return claims.tenant(self.operator, account, self.region)

    def platform(self) -> str:
        """The same of the platform's account."""
        return claims.platform(self.operator, now())

    async def push(self, token: str) -> None:
        """Tell the server of an account; who is connected beyond its new limits is cut off."""
        await self._ask(subjects.ACCOUNTS_UPDATE, token.encode())

    async def forget(self, accounts: Sequence[str]) -> None:
        """Remove accounts and cut off who is connected. Those that are not there are no error."""
        gone = [each for each in accounts if await self.lookup(each)]
        if gone:
            await self._ask(subjects.ACCOUNTS_DELETE, claims.deletion(self.operator, gone, now()).encode())

    async def listed(self) -> set[str]:
        """The accounts that the server knows."""
        return set(msgspec.convert(await self._ask(subjects.ACCOUNTS_LIST, b""), list[str]))

    async def lookup(self, account: str) -> str:
        """What the server knows of an account; empty: nothing."""
        return (await self._request(subjects.account_lookup(account), b"")).decode()

    async def holds(self, total: bytes) -> bool:
        """Whether the server knows exactly the accounts whose digests, combined, are this."""
        async with aclosing(self._packed(total)) as found:
            async for _ in found:
                return False
        return True

    async def otherwise(self, digests: Mapping[str, bytes]) -> dict[str, str]:
        """Of all accounts that the server knows, those of which it has something else than the text with this SHA-256, or of which no
        digest is given: public key -> what it has. When there are none, nothing is sent but one hash of all.
        """
        found: dict[str, str] = {}
        async with aclosing(self._packed(combined(digests.values()))) as texts:
            async for account, token in texts:
                if hashlib.sha256(token.encode()).digest() != digests.get(account):
                    found[account] = token
        return found

    async def _packed(self, total: bytes) -> AsyncGenerator[tuple[str, str], None]:
        """All accounts that the server knows, and what it has of each; none, when their digests combined are this."""
        client: Any = self._client  # its stubs leave options untyped
        try:
            inbox = client.new_inbox()
            subscription = await client.subscribe(inbox)
            try:
                await client.publish(subjects.ACCOUNTS_PACK, total, reply=inbox)
                while text := (await subscription.next_msg(timeout=ANSWER_SECONDS)).data.decode():
                    account, _, token = text.partition("|")
                    yield account, token
            finally:
                await subscription.unsubscribe()
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"NATS does not answer: {str(error) or type(error).__name__}", retry_after=1.0) from error

    def login(self, account: Account, name: str, *, seconds: int, rights: Rights) -> Login:
        """A new user of a tenant's account."""
        key, user = self.operator.account(account.tenant_id), new_key(Kind.USER)
        at = max(now(), account.revoked_before + 1)
        token = claims.user(key, user.public, name, at=at, until=at + seconds, rights=rights)
        return Login(key.public, user.public, claims.credentials(token, user.seed), at + seconds)

    async def _ask(self, subject: str, payload: bytes) -> Any:
        try:
            answer = msgspec.json.decode(await self._request(subject, payload), type=_Answer)
        except msgspec.DecodeError as error:
            raise Refused(f"NATS answers nonsense: {error}") from error
        if answer.error is not None:
            raise Refused(answer.error.description)
        return answer.data

    async def _request(self, subject: str, payload: bytes) -> bytes:
        try:
            return (await self._client.request(subject, payload, timeout=ANSWER_SECONDS)).data
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"NATS does not answer: {str(error) or type(error).__name__}", retry_after=1.0) from error


def combined(digests: Iterable[bytes]) -> bytes:
    """One digest of many: their exclusive or, in which order does not matter."""
    total = 0
    for each in digests:
        total ^= int.from_bytes(each)
    return total.to_bytes(SHA256_BYTES)


@asynccontextmanager
async def open_accounts(settings: NatsSettings, region: str, *, name: str) -> AsyncIterator[Accounts | None]:
    """The accounts of this installation, or None when no operator is configured. Raises `Misconfigured` when it is another server's."""
    if not settings.operator_file:
        yield None
        return
    operator = read_operator(settings.operator_file)
    back = asyncio.Event()

    async def reconnected() -> None:
        back.set()

    options = {**logging_in(operator.system, name), "reconnected_cb": reconnected}
    async with connected(settings, f"{name}-accounts", options) as client:
        yield Accounts(operator, client, region, server=settings, back=back)


def logging_in(account: Key, name: str) -> dict[str, Any]:
    """How a user of an account that may do all the account can logs in, as the client's options."""
    user = new_key(Kind.USER)
    token = claims.user(account, user.public, name, at=now())

    def said() -> bytearray:
        return bytearray(token.encode())

    def signed(nonce: str) -> bytes:
        return base64.b64encode(user.sign(nonce.encode()))

    return {"user_jwt_cb": said, "signature_cb": signed}


def now() -> int:
    """Seconds since 1970, as JWTs have them."""
    return int(clock.now().timestamp())
