"""API keys as their tenant handles them: made, shown, rotated, revoked. A key may never do more than whoever made it.

The text of a key is given out once, by what makes it, and is stored nowhere.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from hansa import clock
from hansa.audit.model import Action
from hansa.audit.service import record
from hansa.auth import store
from hansa.auth.bindings import account_bound, bound_to
from hansa.auth.model import PERMISSIONS, PLATFORM, ROLES, Bound, Grant, Principal, permissions_of, permissions_within, within_tenant
from hansa.auth.service import Authenticator, issue_key
from hansa.db.pool import Connection, Database
from hansa.errors import Conflict, FieldError, Forbidden, Invalid, NotFound

Made = tuple[str, str]
"""The text of a new key, and how people see the key, as JSON text."""


class ApiKeys:
    """The API keys of tenants. `pepper` is mixed into every hash; `tell` says to every process that keys have changed."""

    def __init__(self, database: Database, authenticator: Authenticator, *, pepper: bytes, tell: Callable[[], Awaitable[None]]) -> None:
        self._database = database
        self._authenticator = authenticator
        self._pepper = pepper
        self._tell = tell

    async def make(
        self,
        connection: Connection,
        principal: Principal,
        *,
        grant: Grant,
    ) -> Made:
        """Make a key in the caller's transaction. Raises `Invalid`, or `Forbidden` when it could do more than its maker."""
        grant = msgspec.structs.replace(grant, made_by=principal.name, expires_at=_future(grant.expires_at))
        if (grant.service_account is None) == (not grant.roles):
            raise _invalid("roles", "one_of", "a key has roles, or a service account whose roles it has: name one of them")
        bound = await self._bound(connection, grant)
        check_names(bound, grant.scopes)
        check_within(principal, bound, grant.scopes)
        if self._database.of(principal.tenant_id).name and within_tenant(bound.roles) != bound.roles:
            raise _invalid("roles", "range", "the tenant has a database of its own, whose keys have no role of the platform")
        made = await self._issue(connection, principal, grant)
        await record(connection, principal.did(Action.KEY_MADE, _target(made[1]), after=msgspec.json.decode(made[1])))
        return made

    async def rotate(self, connection: Connection, principal: Principal, key_id: str, *, grace: timedelta) -> Made:
        """Make a successor that may do the same, and let the key itself end after `grace`; until then both are good."""
        known = await store.read_key(connection, key_id, lock=True)
        if known is None:
            raise _missing(key_id)
        if known["dead"]:
            raise Conflict(f"the API key {key_id} is revoked or has expired", hint="Make a new one.")
        grant = Grant(
            name=known["name"],
            roles=tuple(known["roles"]),
            scopes=None if known["scopes"] is None else tuple(known["scopes"]),
            made_by=principal.name,
            expires_at=known["expires_at"],
            service_account=known["service_account"],
            predecessor=key_id,
        )
        check_within(principal, await self._bound(connection, grant), grant.scopes)
        until = clock.now() + grace
        await store.expire_key(connection, key_id, until)
        made = await self._issue(connection, principal, grant)
        change = {"successor": msgspec.json.decode(made[1]), "good_until": until}
        await record(connection, principal.did(Action.KEY_ROTATED, f"ApiKey/{key_id}", after=change))
        return made

    async def _issue(self, connection: Connection, principal: Principal, grant: Grant) -> Made:
        own = self._database.of(principal.tenant_id).name
        return await issue_key(connection, principal.tenant_id, grant=grant, pepper=self._pepper, own=own)

    async def _bound(self, connection: Connection, grant: Grant) -> Bound:
        """What a key of this grant has now."""
        if grant.service_account is None:
            return Bound(grant.roles)
        account = await store.find_account(connection, grant.service_account)
        if account is None:
            raise _invalid("service_account", "reference", f"there is no service account {grant.service_account!r}")
        return account_bound(account.name, account.roles, account.bindings)

    async def revoke(self, principal: Principal, key_id: str) -> None:
        """Revoke a key: no request that comes later is let in with it. Safe to repeat. Raises `NotFound`, and `Forbidden` for one of the
        platform's own people, whom nobody of a tenant locks out."""
        async with self._database.tenant(principal.tenant_id) as connection:
            known = await store.read_key(connection, key_id, lock=True)
            if known is None:
                raise _missing(key_id)
            if not known["dead"]:
                its = Grant(name=known["name"], roles=tuple(known["roles"]), service_account=known["service_account"])
                check_platform(principal, (await self._bound(connection, its)).roles)
            await store.revoke_key(connection, key_id)
            after = await store.read_key(connection, key_id)
            if after is not None and after["body"] != known["body"]:
                before, now = msgspec.json.decode(known["body"]), msgspec.json.decode(after["body"])
                await record(connection, principal.did(Action.KEY_REVOKED, f"ApiKey/{key_id}", before=before, after=now))
        await self.changed()

    async def changed(self) -> None:
        """Tell every process, this one first, to look at keys again. Comes after the commit."""
        await self._authenticator.forget()
        await self._tell()

    async def get(self, principal: Principal, key_id: str) -> str:
        """A key as JSON text, without its secret."""
        async with self._database.tenant(principal.tenant_id) as connection:
            known = await store.read_key(connection, key_id)
        if known is None:
            raise _missing(key_id)
        return known["body"]

    async def access(self, principal: Principal, subject: str, groups: Sequence[str]) -> tuple[Bound, tuple[str, ...] | None]:
        """What somebody in the caller's tenant has, and the scopes of a key. Raises `Invalid` for what names nobody, `NotFound`."""
        kind, _, name = subject.partition(":")
        async with self._database.tenant(principal.tenant_id) as connection:
            match kind:
                case "user" if name:
                    return bound_to(await store.role_bindings(connection), user=name, groups=groups), None
                case "service" if name:
                    account = await store.find_account(connection, name)
                    if account is None:
                        raise NotFound(f"there is no service account {name[:80]!r}")
                    return account_bound(name, account.roles, account.bindings), None
                case "key" if name:
                    known = await store.read_key(connection, name)
                    if known is None:
                        raise _missing(name)
                    scopes = None if known["scopes"] is None else tuple(known["scopes"])
                    grant = Grant(name=known["name"], roles=tuple(known["roles"]), service_account=known["service_account"])
                    return Bound() if known["dead"] else await self._bound(connection, grant), scopes
                case _:
                    raise _invalid("subject", "pattern", "is user:ISSUER:NAME, service:NAME or key:ID")

    async def page(self, principal: Principal, *, after: tuple[str, str], limit: int) -> tuple[list[str], tuple[str, str] | None]:
        """Keys by name and id, and where the next page begins."""
        async with self._database.tenant(principal.tenant_id) as connection:
            rows = await store.page_keys(connection, after, limit + 1)
        last = (rows[limit - 1]["name"], rows[limit - 1]["id"]) if len(rows) > limit else None
        return [row["body"] for row in rows[:limit]], last


def _future(at: datetime | None) -> datetime | None:
    if at is None:
        return None
    try:
        moment = at.astimezone(UTC)
    except OverflowError:
        raise _invalid("expires_at", "range", f"{at.isoformat()} lies outside of the years 1 to 9999 in UTC") from None
    if moment <= clock.now():
        raise _invalid("expires_at", "range", f"{at.isoformat()} is in the past")
    return moment


def check_names(bound: Bound, scopes: Sequence[str] | None) -> None:
    """Raises `Invalid` for a role or a permission that is not there, and when they leave nothing."""
    for path, named, known in (("roles", bound.roles, ROLES), ("scopes", scopes or (), PERMISSIONS)):
        for number, each in enumerate(named):
            if each not in known:
                raise _invalid(f"{path}[{number}]", "reference", f"there is no {path[:-1]} {each[:80]!r}; there are {', '.join(known)}")
    if not permissions_of(bound.roles, scopes) and not any(permissions_within(each.roles, scopes) for each in bound.within):
        raise _invalid("scopes" if scopes is not None else "roles", "reference", "leave the key nothing that it may do")


def check_within(principal: Principal, bound: Bound, scopes: Sequence[str] | None) -> None:
    """Raises `Forbidden` when what is bound, narrowed by the scopes, could do more than the principal."""
    beyond = permissions_of(bound.roles, scopes) - principal.permissions
    for each in bound.within:
        beyond |= {named for named in permissions_within(each.roles, scopes) if not principal.may_in(named, each.namespace)}
    if beyond:
        raise Forbidden(
            f"it would do more than its maker: you may not {', '.join(sorted(beyond))}", hint="Name other roles, or scopes without these."
        )


def check_platform(principal: Principal, roles: Sequence[str]) -> None:
    """Raises `Forbidden` when the roles have permissions of the platform that the principal does not have."""
    beyond = sorted((permissions_of(roles, None) & PLATFORM) - principal.permissions)
    if beyond:
        raise Forbidden(
            f"it is one of the platform: you may not {', '.join(beyond)}", hint="Somebody with the role platform-admin can do it."
        )


def _invalid(path: str, code: str, message: str) -> Invalid:
    return Invalid(f"{path}: {message}", errors=(FieldError(path, code, message),))


def _target(key: str) -> str:
    return f"ApiKey/{msgspec.json.decode(key)['id']}"


def _missing(key_id: str) -> NotFound:
    return NotFound(f"there is no API key {key_id[:40]!r}")
