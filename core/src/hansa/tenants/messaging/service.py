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

from hansa.audit.model import Action
from hansa.audit.service import record
from hansa.auth.model import Principal
from hansa.bus import claims, subjects
from hansa.bus.accounts import Accounts, Login, Refused
from hansa.bus.claims import Rights
from hansa.bus.reach import Reach, probe
from hansa.db.joining import joining
from hansa.db.pool import Connection, Database, enter_tenant
from hansa.errors import Conflict, Forbidden, Unavailable
from hansa.tenants.messaging import store
from hansa.tenants.messaging.model import Condition, Known, condition
from hansa.tenants.service import tenant_id as id_of

log = structlog.stdlib.get_logger("hansa.tenants")
LOOK_SECONDS = 30.0
SETTLE_SECONDS = 1.0
AT_ONCE = 16
LONGEST_SECONDS = 3600


class Messaging:
    """NATS accounts of all tenants. Without an operator (`accounts` is None) there are none, and it says so."""

    def __init__(self, database: Database, accounts: Accounts | None) -> None:
        self._database = database
        self._accounts = accounts
        self._turn = 0

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
            if not await self._tell(self._accounts, known):
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
        await record(connection, principal.did(Action.CREDENTIALS_MADE, f"NatsCredentials/{name}", after={"until": made.until}))
        return made

    async def revoke(self, principal: Principal) -> None:
        """Turn away all programs of the tenant; new credentials let them in again. Safe to repeat."""
        self._configured()
        tenant = principal.tenant_id
        async with self._database.here(tenant) as connection, joining(self._database, connection, self._database) as joined:
            await store.revoke(joined, tenant)
            await enter_tenant(joined, tenant)
            await record(joined, principal.did(Action.CREDENTIALS_REVOKED, "NatsCredentials"))
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
        there = await accounts.listed()  # first: who is listed and not in the database then has been removed from it
        await store.add_missing(self._database)
        every = await store.every(self._database)
        told = {known.account: known for known in every if known.account is not None and known.told == self._word(known)}
        wanting = [known for known in every if known.account not in told or known.account not in there]
        changed, stray = await self._behind_our_back(accounts, told)
        wanting += changed
        for start in range(0, len(wanting), AT_ONCE):
            await asyncio.gather(*(self._tell(accounts, known) for known in wanting[start : start + AT_ONCE]))
        holes = [f"somebody else has told NATS what the account of tenant {known.tenant_id} may reach" for known in changed]
        mended = await self._platform(accounts)
        holes += ["somebody else has told NATS what the platform's account offers"] if mended else []
        of_tenants = {known.account for known in every} | {accounts.public(known.tenant_id) for known in wanting}
        await self._prune(accounts, (stray & there) - of_tenants, tenants=len(every))
        await store.looked(self._database, accounts.region, holes + await self._tried(accounts, list(told.values())))
        return mended + len(wanting)

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

    async def _tell(self, accounts: Accounts, known: Known) -> bool:
        """Tell NATS of one account; false when it does not take it."""
        token = accounts.token(known.wanted())
        try:
            await accounts.push(token)
        except (Refused, Unavailable) as error:
            log.warning("messaging.not_told", tenant_id=str(known.tenant_id), error=str(error))
            await store.fail(self._database, known.tenant_id, str(error))
            return False
        digest = hashlib.sha256(token.encode()).digest()
        account = accounts.public(known.tenant_id)
        await store.tell(self._database, known.tenant_id, account=account, told=self._word(known), digest=digest)
        return True

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
        ours = (accounts.operator.system.public, accounts.operator.platform.public)
        digests = {own: hashlib.sha256((await accounts.lookup(own)).encode()).digest() for own in ours}
        digests |= {account: known.digest for account, known in told.items() if known.digest is not None}
        found = await accounts.otherwise(digests)
        changed: list[Known] = []
        for known in (told[account] for account in found if account in told):
            # Another control plane may have told it something newer since the rows were read.
            text, now = await accounts.lookup(known.account or ""), await store.one(self._database, known.tenant_id)
            if now == known and text != accounts.token(known.wanted()):
                log.error("messaging.changed_behind_our_back", tenant_id=str(known.tenant_id))
                changed.append(known)
        return changed, set(found) - set(told) - set(ours)

    async def _tried(self, accounts: Accounts, told: Sequence[Known]) -> list[str]:
        """What one tenant, another each time, could reach of the next one and of the platform."""
        open_to = [known.tenant_id for known in told if not known.blocked and known.connections]
        if len(open_to) < 2:
            return []
        self._turn += 1
        a, b = (open_to[(self._turn + number) % len(open_to)] for number in range(2))
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
