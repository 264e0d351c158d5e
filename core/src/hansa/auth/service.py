"""Authentication: from a bearer credential, a key or a token, to a principal. Answers are cached for a few seconds, so that a busy
one costs no query.

A process that is told of a revoked key forgets what it knew at once. Warning: one that could not be told, because NATS was away,
lets the key in up to `CACHE_SECONDS` longer.
"""

import hashlib
import hmac
from uuid import UUID

import structlog

from hansa import clock
from hansa.auth import keys, store
from hansa.auth.bearers import Bearers
from hansa.auth.bindings import account_bound
from hansa.auth.model import Bound, CredentialRefused, Grant, Principal, StoredKey, within_tenant
from hansa.db.pool import Connection, Database
from hansa.errors import Forbidden, Unauthenticated, Unavailable

log = structlog.stdlib.get_logger("hansa.auth")
CACHE_SECONDS = 2.0
CACHE_KEYS = 10_000
UNKNOWN, UNKNOWN_HINT = "the API key is not known here", "Was it made by this installation?"
"""Also of a key that is here and has another secret: who guesses learns nothing."""


_CLOSED = {"archived": "archived", "deleting": "being deleted"}


class Authenticator:
    """Checks API keys, and hands tokens to `bearers`. `pepper` is mixed into every hash of a key."""

    def __init__(self, database: Database, pepper: bytes, bearers: Bearers) -> None:
        self._database = database
        self._pepper = pepper
        self._bearers = bearers
        self._cache: dict[str, tuple[float, StoredKey]] = {}
        self._seen: dict[bytes, tuple[float, Principal]] = {}
        self._changes = 0

    async def authenticate(self, header: str | None) -> Principal:
        """The principal of an `Authorization` header. Raises `Unauthenticated` with the check that failed."""
        if not header:
            raise Unauthenticated("no credential was sent", hint="Send `Authorization: Bearer <API key>`.")
        # A busy caller sends the same header again and again: only one with this very hash was let in, and only a moment ago.
        mark = hashlib.sha256(header.encode() + self._pepper).digest()
        seen = self._seen.get(mark)
        if seen is not None and seen[0] > clock.monotonic():
            return seen[1]
        changes = self._changes
        until, principal = await self._checked(header)
        if len(self._seen) >= CACHE_KEYS:
            self._seen.clear()
        if changes == self._changes:
            self._seen[mark] = until, principal
        return principal

    async def _checked(self, header: str) -> tuple[float, Principal]:
        """Until when (monotonic) the header needs no second look, and its principal."""
        scheme, _, credential = header.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("the Authorization header is not of the Bearer scheme", hint="Send `Authorization: Bearer <API key>`.")
        credential = credential.strip()
        if "." in credential:  # which no API key holds
            return await self._bearers.principal(credential)
        parsed = keys.parse(credential)
        until, stored = await self._find(parsed.id)
        if stored is None:
            raise Unauthenticated(UNKNOWN, hint=UNKNOWN_HINT)
        if not hmac.compare_digest(stored.digest, keys.digest(parsed.secret, self._pepper)):
            raise _refused(stored, UNKNOWN, UNKNOWN_HINT)
        if stored.revoked_at is not None:
            raise _refused(stored, "the API key has been revoked", "Use its successor.")
        if stored.state != "active":
            raise Forbidden(f"the tenant {stored.tenant!r} is {_CLOSED[stored.state]}: nobody is let in", hint="Ask the platform's people.")
        if stored.expires_at is not None and stored.expires_at <= clock.now():
            raise _refused(stored, "the API key has expired", "Use its successor.")
        if stored.expires_at is not None:
            until = min(until, clock.monotonic() + (stored.expires_at - clock.now()).total_seconds())
        if stored.unused:
            await self._used(stored)
        account = stored.service_account
        bound = account_bound(account, stored.account_roles or (), stored.bindings) if account else Bound(stored.roles)
        return until, Principal(
            tenant_id=stored.tenant_id,
            tenant=stored.tenant,
            name=f"service:{account}" if account else f"key:{stored.id}",
            kind="service" if account else "key",
            # Whoever looks after a tenant's own database could write anything there: it opens this tenant and nothing else.
            roles=within_tenant(bound.roles) if stored.database == "Dedicated" else bound.roles,
            within=bound.within,
            scopes=stored.scopes,
            rated=stored.rated,
        )

    async def _used(self, stored: StoredKey) -> None:
        self._cache.pop(stored.id, None)
        try:
            await store.key_used(self._database, stored)
        except Unavailable as error:  # a full disk, say: who may come in does not depend on it
            log.warning("auth.use_not_kept", key=stored.id, error=str(error))

    async def forget(self, _: bytes = b"") -> None:
        """Look at every key again: some were revoked, here or in another process. What is being looked up is not kept either."""
        self._changes += 1
        self._cache.clear()
        self._seen.clear()
        self._bearers.forget()

    async def _find(self, key_id: str) -> tuple[float, StoredKey | None]:
        now = clock.monotonic()
        known = self._cache.get(key_id)
        if known is not None and known[0] > now:
            return known
        changes = self._changes
        stored = await store.find_key(self._database, key_id)
        if len(self._cache) >= CACHE_KEYS:
            self._cache.clear()
        if stored is not None and changes == self._changes:
            self._cache[key_id] = (now + CACHE_SECONDS, stored)
        return now + CACHE_SECONDS, stored


def _refused(stored: StoredKey, detail: str, hint: str) -> CredentialRefused:
    return CredentialRefused(detail, stored.tenant_id, f"key:{stored.id}", hint=hint)


async def issue_key(connection: Connection, tenant_id: UUID, *, grant: Grant, pepper: bytes, own: str = "") -> tuple[str, str]:
    """Make and store a key in the tenant's transaction: (its text, never to be had again; how people see it, as JSON text). `own`: the
    name of a tenant in whose own database that is."""
    text, key_id, secret = keys.make("live", mark=keys.mark_of(own))
    return text, await store.insert_key(connection, tenant_id, key_id, digest=keys.digest(secret, pepper), grant=grant)
