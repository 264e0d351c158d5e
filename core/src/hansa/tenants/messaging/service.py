"""Sees to it that NATS knows every tenant's account as it shall be, and gives out what tenants' own programs log in with.

What an account shall be is committed with the Tenant object; NATS is told right after, and again whenever a look, each half minute and
whenever NATS has come back, finds that it knows something else or nothing. Warning: between the two stands a moment, so nobody is told that
an account is closed before NATS has said so.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import structlog

from hansa import clock
from hansa.audit.model import Action
from hansa.audit.owing import decided
from hansa.audit.service import record
from hansa.auth.model import Principal
from hansa.bus import claims, subjects
from hansa.bus.accounts import Accounts, Login, Refused, combined
from hansa.bus.claims import Rights
from hansa.bus.reach import Reach, probe
from hansa.db.joining import joining
from hansa.db.pool import Connection, Database
from hansa.errors import Conflict, Forbidden, Unavailable
from hansa.tenants.mending import settled
from hansa.tenants.messaging import store
from hansa.tenants.messaging.model import Condition, Known, Told, condition
from hansa.tenants.service import tenant_id as id_of

log = structlog.stdlib.get_logger("hansa.tenants")
LOOK_SECONDS = 30.0
SETTLE_SECONDS = 1.0
AT_ONCE = 16
PAGE = 500
LONGEST_SECONDS = 3600
MOST_REVOKED = 1000
"""Most single users of a tenant that are turned away at a time: NATS is told of each as long as it could come back."""


class Messaging:
    """NATS accounts of all tenants. Without an operator (`accounts` is None) there are none, and it says so."""

    def __init__(self, database: Database, accounts: Accounts | None, *, page: int = PAGE) -> None:
        """`page`: how many accounts are looked at at a time."""
        self._database = database
        self._accounts = accounts
        self._tried_last = UUID(int=0)
        self._page = page

    @property
    def accounts(self) -> Accounts | None:
        return self._accounts

    async def changed(self, tenants: Iterable[str]) -> None:
        """Tenant objects were applied: tell NATS now. What takes longer than a second is left to the next look."""
        if self._accounts is None:
            return
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await asyncio.gather(*(self.settle(id_of(name)) for name in tenants))
        except (TimeoutError, Unavailable) as error:
            log.warning("messaging.waits", error=str(error) or type(error).__name__)

    async def settle(self, tenant_id: UUID) -> Condition:
        """Tell NATS how a tenant's account shall be, until it is; how it is then. Raises `Unavailable` when the database is away."""
        known = await store.one(self._database, tenant_id)
        while self._accounts is not None and known is not None and known.told != self._word(known):
            if not await self._tell(self._accounts, [known]):
                break
            known = await store.one(self._database, tenant_id)  # it may have changed meanwhile
        return condition(known, self._word(known) if self._accounts else None)

    async def forget(self, tenant_id: UUID) -> None:
        """A tenant is gone for good: so is its account, and whoever is connected is cut off. Safe to repeat."""
        if self._accounts is not None:
            await self._accounts.forget([self._accounts.public(tenant_id)])

    async def state(self, tenant_id: UUID) -> tuple[Known | None, Condition]:
        """The account of a tenant."""
        known = await store.one(self._database, tenant_id)
        return known, condition(known, self._word(known) if self._accounts else None)

    async def login(self, connection: Connection, principal: Principal, name: str, *, seconds: int) -> Login:
        """Credentials that may do what the caller may: send events if it may start runs, hear news if it may read them."""
        accounts = self._configured()
        await self.settle(principal.tenant_id)
        known, found = await self.state(principal.tenant_id)
        if known is None or found.status != "True":
            if found.reason == "AccountBlocked":
                raise Conflict(found.message)
            raise Unavailable(f"the tenant's NATS account is not ready: {found.message}", hint="Try again shortly.", retry_after=1.0)
        made = accounts.login(known.wanted(), name, seconds=min(seconds, LONGEST_SECONDS), rights=rights_of(principal))
        after = {"user": made.user, "until": made.until}
        await record(connection, principal.did(Action.CREDENTIALS_MADE, f"NatsCredentials/{name}", after=after))
        return made

    async def revoke(self, principal: Principal, user: str | None = None) -> None:
        """Turn away all programs of the tenant, or the one that logs in as `user` (its public key); new credentials let them in again. Safe
        to repeat. Raises `Conflict`."""
        self._configured()
        tenant = principal.tenant_id
        async with self._database.here(tenant) as connection, joining(self._database, connection, self._database) as joined:
            if user is None:
                await store.revoke(joined, tenant)
            elif not await store.revoke_user(joined, tenant, user, seconds=LONGEST_SECONDS, most=MOST_REVOKED):
                raise Conflict(f"{MOST_REVOKED} credentials of the last hour are revoked already", hint="Revoke all of the tenant's.")
            target = f"NatsCredentials/{user}" if user else "NatsCredentials"
            await decided(joined, tenant, principal.did(Action.CREDENTIALS_REVOKED, target))
        await settled(self._database, [principal.tenant])
        found = await self.settle(principal.tenant_id)
        if found.reason == "AccountNotMade":
            raise Unavailable(f"NATS does not know of it yet: {found.message}", hint="It will be told once it is back.", retry_after=1.0)

    async def probe(self, a: UUID, b: UUID) -> Reach | None:
        """As tenant `a`, try to reach tenant `b` and the platform over NATS; None when one of them has no account that lets anybody in.
        Takes a connection of each. Raises `Unavailable`.
        """
        both = [await self.settle(tenant_id) for tenant_id in (a, b)]
        if self._accounts is None or any(found.status != "True" for found in both):
            return None
        return await probe(self._accounts, a, b)

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """While the context is open, what NATS knows is looked at from time to time."""
        task = asyncio.create_task(self._look(), name="messaging.look")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def look(self) -> int:
        """Compare what NATS knows with what it shall know, tell it what it does not, and try its walls; to how many accounts something was
        told. What it had been told behind our back is kept as a hole (`store.holes`). Raises `Unavailable`, `Refused`.
        """
        accounts = self._accounts
        if accounts is None:
            return 0
        await store.add_missing(self._database)
        told, digests = await self._settle_all(accounts)
        holes: list[str] = []
        if not await accounts.holds(digests):
            again, holes = await self._compare(accounts)
            told += again
        mended = await self._platform(accounts)
        holes += ["somebody else has told NATS what the platform's account offers"] if mended else []
        await store.looked(self._database, accounts.region, holes + await self._tried(accounts))
        return mended + told

    async def _settle_all(self, accounts: Accounts) -> tuple[int, bytes]:
        """Tell NATS of every account that it was not told of as it shall be: how many, and the digests of all, by exclusive or. A page at a
        time: there may be any number of tenants."""
        digests = await self._own(accounts)
        total, told, after = combined(digests.values()), 0, UUID(int=0)
        while page := await store.page(self._database, after, self._page):
            wanting = [known for known in page if known.account is None or known.told != self._word(known)]
            made = await self._tell_all(accounts, wanting)
            lacking = {known.tenant_id for known in wanting}
            there = [known.digest for known in page if known.digest is not None and known.tenant_id not in lacking]
            total = combined((total, *there, *(each.digest for each in made)))
            told, after = told + len(wanting), page[-1].tenant_id
        return told, total

    async def _compare(self, accounts: Accounts) -> tuple[int, list[str]]:
        """NATS has something else: tell it again what it lacks or was told by somebody else, and remove what nobody has. To how many
        accounts something was told, and what holes these were."""
        there = await accounts.listed()  # first: who is listed and not in the database then has been removed from it
        every = await store.every(self._database)
        told = {known.account: known for known in every if known.account is not None and known.told == self._word(known)}
        wanting = [known for known in every if known.account not in told or known.account not in there]
        changed, stray = await self._behind_our_back(accounts, told)
        wanting += changed
        await self._tell_all(accounts, wanting)
        of_tenants = {known.account for known in every} | {accounts.public(known.tenant_id) for known in wanting}
        await self._prune(accounts, (stray & there) - of_tenants, tenants=len(every))
        return len(wanting), [f"somebody else has told NATS what the account of tenant {known.tenant_id} may reach" for known in changed]

    async def _look(self) -> None:
        accounts = self._accounts
        while accounts is not None:
            accounts.back.clear()
            try:
                mended = await self.look()
                if mended:
                    log.info("messaging.told", accounts=mended)
            except (Unavailable, Refused) as error:
                log.warning("messaging.waits", error=str(error))
                await asyncio.sleep(1.0)
                continue
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await accounts.back.wait()
            except TimeoutError:
                continue

    async def _tell_all(self, accounts: Accounts, wanting: Sequence[Known]) -> list[Told]:
        """Tell NATS of any number of accounts; those that it has taken."""
        told: list[Told] = []
        for start in range(0, len(wanting), AT_ONCE):
            begun = clock.monotonic()
            told += await self._tell(accounts, wanting[start : start + AT_ONCE])
            # As long again for whoever asks something of this process meanwhile: there may be thousands of them.
            await asyncio.sleep(clock.monotonic() - begun)
        return told

    async def _tell(self, accounts: Accounts, wanting: Sequence[Known]) -> list[Told]:
        """Tell NATS of some accounts, and keep what it has taken: that."""
        told = [each for each in await asyncio.gather(*(self._push(accounts, known) for known in wanting)) if each is not None]
        if told:
            await store.tell(self._database, told)
        return told

    async def _push(self, accounts: Accounts, known: Known) -> Told | None:
        token = accounts.token(known.wanted())
        try:
            await accounts.push(token)
        except (Refused, Unavailable) as error:
            log.warning("messaging.not_told", tenant_id=str(known.tenant_id), error=str(error))
            await store.fail(self._database, known.tenant_id, str(error))
            return None
        return Told(known.tenant_id, claims.read(token)["sub"], self._word(known), hashlib.sha256(token.encode()).digest())

    async def _platform(self, accounts: Accounts) -> int:
        """Whether the platform's own account had to be put right: what it offers is what tenants can reach at all."""
        wanted, found = accounts.platform(), await accounts.lookup(accounts.operator.platform.public)
        if found and claims.read(found).get("nats") == claims.read(wanted)["nats"]:
            return 0
        log.warning("messaging.platform_put_right")
        await accounts.push(wanted)
        return 1

    async def _behind_our_back(self, accounts: Accounts, told: Mapping[str, Known]) -> tuple[list[Known], set[str]]:
        """Accounts of which NATS has something else than we told it, and those that it knows and we did not tell it of."""
        digests = await self._own(accounts)
        ours = set(digests)
        digests |= {account: known.digest for account, known in told.items() if known.digest is not None}
        found = await accounts.otherwise(digests)
        changed: list[Known] = []
        for known in (told[account] for account in found if account in told):
            # Another control plane may have told it something newer since the rows were read.
            text, now = await accounts.lookup(known.account or ""), await store.one(self._database, known.tenant_id)
            if now == known and text != accounts.token(known.wanted()):
                log.error("messaging.changed_behind_our_back", tenant_id=str(known.tenant_id))
                changed.append(known)
        return changed, set(found) - set(told) - ours

    async def _own(self, accounts: Accounts) -> dict[str, bytes]:
        """The digests of the system's account and of the platform's, as NATS has them: they are looked at otherwise."""
        ours = (accounts.operator.system.public, accounts.operator.platform.public)
        return {own: hashlib.sha256((await accounts.lookup(own)).encode()).digest() for own in ours}

    async def _tried(self, accounts: Accounts) -> list[str]:
        """What one tenant, another each time, could reach of the next one and of the platform."""
        pair = await store.pair(self._database, self._tried_last)
        if len(pair) < 2:
            return []
        a, b = pair
        self._tried_last = a
        try:
            found = await probe(accounts, a, b)
        except Unavailable as error:
            log.info("messaging.not_probed", error=error.detail)  # it may have all the connections that it can have
            return []
        if found.broken:
            log.warning("messaging.slice_broken", tenant_id=str(a), told=found.broken)
        return [f"over NATS, with a = tenant {a} and b = tenant {b}: {leak}" for leak in found.leaks]

    async def _prune(self, accounts: Accounts, unknown: set[str], *, tenants: int) -> None:
        """Remove accounts that we made for tenants which are gone, or that no operator of this server has signed, which let nobody in. A
        database without tenants is not believed.
        """
        own = accounts.operator.key.public
        gone: list[str] = []
        for account in unknown if tenants else ():
            text = await accounts.lookup(account)
            said = claims.read(text) if text else {}
            if text and (said.get("iss") != own or claims.MARK in said["nats"].get("tags", ())):
                gone.append(account)
        if gone:
            log.warning("messaging.pruned", accounts=len(gone))
            await accounts.forget(gone)

    def _word(self, known: Known | None) -> str:
        """What is kept of an account that NATS knows: who says so, and which version of what."""
        accounts = self._accounts
        if accounts is None or known is None:
            return ""
        return f"{claims.FORMAT}:{accounts.operator.key.public[:16]}:{accounts.region}:{known.version}"

    def _configured(self) -> Accounts:
        if self._accounts is None:
            raise Conflict(condition(None, None).message, hint="docs/participants.md says how to run NATS with accounts.")
        return self._accounts


def rights_of(principal: Principal) -> Rights:
    """What credentials made by someone may do: no more than their maker."""
    publish = (subjects.own_event(">"), subjects.own_session_event("*", ">")) if principal.may("runs:start") else ()
    news = (subjects.own_news("*"),) if principal.may("runs:read") else ()
    if not publish and not news:
        raise Forbidden("you may neither start runs (runs:start) nor read them (runs:read): credentials of yours could do nothing")
    return Rights(publish=publish, subscribe=(*news, subjects.INBOXES))
