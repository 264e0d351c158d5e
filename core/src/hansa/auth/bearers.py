"""Bearer tokens of the issuers that tenants name: from a token to a principal.

A token opens the one tenant whose Tenant object names both its issuer and its audience. One that was checked is not checked again
while its key is its issuer's and its time is not over; who it names may do what the role bindings say now.
"""

import hashlib
from uuid import UUID

import msgspec

from hansa import clock
from hansa.auth import store, tokens
from hansa.auth.bindings import bound_to
from hansa.auth.issuers import IssuerKeys, Place
from hansa.auth.model import CredentialRefused, Principal, StoredIssuer
from hansa.auth.tokens import Expected, Person, Presented
from hansa.db.pool import Database
from hansa.errors import Unauthenticated

CACHE_SECONDS = 2.0
CACHE_ISSUERS = 10_000
CACHE_TOKENS = 10_000


class _Checked(msgspec.Struct, frozen=True):
    """A token that passed, for which tenant, by which key, and until when (seconds since 1970)."""

    tenant_id: UUID
    place: Place
    kid: str
    mark: str
    until: float
    person: Person


class Bearers:
    """Checks tokens."""

    def __init__(self, database: Database, keys: IssuerKeys) -> None:
        self._database = database
        self._keys = keys
        self._issuers: dict[str, tuple[float, list[StoredIssuer]]] = {}
        self._checked: dict[bytes, tuple[StoredIssuer, _Checked]] = {}
        self._changes = 0

    def forget(self) -> None:
        """Ask again what tenants say of issuers and roles."""
        self._changes += 1
        self._issuers.clear()

    async def principal(self, text: str) -> tuple[float, Principal]:
        """Until when (monotonic) a token needs no second look, and whom it names. Raises `Unauthenticated`, `Unavailable`."""
        token = tokens.read(text)
        stored = _meant(token, await self._named(token.issuer))
        self._database.expect(stored.tenant_id, stored.database)
        mark = hashlib.sha256(text.encode()).digest()
        known = self._checked.get(mark)
        if known is None or not self._stands(known[0], known[1], stored):
            known = stored, await self._tried(token, stored)
            if len(self._checked) >= CACHE_TOKENS:
                self._checked.clear()
            self._checked[mark] = known
        checked = known[1]
        left = checked.until - clock.now().timestamp()
        name, person = stored.entry.name, checked.person
        user, groups = f"{name}:{person.user}", tuple(f"{name}:{group}" for group in person.groups)
        bound = bound_to(stored.bindings, user=user, groups=groups)
        principal = Principal(
            tenant_id=stored.tenant_id,
            tenant=stored.tenant,
            name=f"user:{user}",
            roles=bound.roles,
            within=bound.within,
            rated=stored.rated,
            kind="user",
            groups=groups,
        )
        return clock.monotonic() + min(CACHE_SECONDS, left), principal

    def _stands(self, before: StoredIssuer, checked: _Checked, stored: StoredIssuer) -> bool:
        """Whether what was found of a token still holds: the same issuer of the same tenant, its key, its time."""
        key = self._keys.known(checked.place, checked.kid)
        return (
            before.entry == stored.entry
            and before.tenant_id == stored.tenant_id
            and clock.now().timestamp() < checked.until
            and key is not None
            and key.mark == checked.mark
        )

    async def _tried(self, token: Presented, stored: StoredIssuer) -> _Checked:
        """What `_check` finds, or a refusal of which the tenant is told too."""
        try:
            return await self._check(token, stored)
        except Unauthenticated as error:
            raise CredentialRefused(error.detail, stored.tenant_id, f"issuer:{stored.entry.name}", hint=error.hint) from error

    async def _check(self, token: Presented, stored: StoredIssuer) -> _Checked:
        entry = stored.entry
        place, kid = Place(entry.issuer, entry.jwks_uri), token.header.kid
        key = await self._keys.find(place, kid)
        expected = Expected(entry.issuer, entry.audience, entry.typ, key, clock.now().timestamp())
        until = tokens.check(token, expected)
        person = tokens.person(token.claims, user=entry.claims.user, groups=entry.claims.groups)
        return _Checked(stored.tenant_id, place, kid, key.mark, until, person)

    async def _named(self, issuer: str) -> list[StoredIssuer]:
        """What tenants say of an issuer."""
        now = clock.monotonic()
        known = self._issuers.get(issuer)
        if known is not None and known[0] > now:
            return known[1]
        changes = self._changes
        found = await store.find_issuers(self._database, issuer)
        if len(self._issuers) >= CACHE_ISSUERS:
            self._issuers.clear()
        if changes == self._changes:
            self._issuers[issuer] = now + CACHE_SECONDS, found
        return found


def _meant(token: Presented, named: list[StoredIssuer]) -> StoredIssuer:
    """The one tenant's issuer that a token is for."""
    hint = "The Tenant's identity.issuers name the issuers that are believed, and their audience."
    if not named:
        raise Unauthenticated("the token's issuer (iss) is not known here", hint=hint)
    meant = [each for each in named if each.entry.audience in token.audiences]
    if not meant:
        raise Unauthenticated("the token's audience (aud) is another", hint=hint)
    if len(meant) > 1:
        raise Unauthenticated("the token's audience (aud) is that of several tenants", hint="Get a token for one of them.")
    return meant[0]
