"""Secrets of tenants: put, listed, deleted, and looked up where they are used. No method that answers people gives a value.

Warning: `value` gives one. Its callers hand it to a provider, a tool server or a tool, and to nothing else.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from hansa import clock
from hansa.audit.model import Action
from hansa.audit.service import record
from hansa.auth.model import Principal
from hansa.db.pool import Connection, Database
from hansa.egress.narrowing import narrow, of_the_platform
from hansa.egress.policy import parse_entry
from hansa.errors import Conflict, Damaged, FieldError, Invalid, LimitExceeded, Misconfigured, NotFound
from hansa.secrets import envelope
from hansa.secrets.keyring import Keyring
from hansa.secrets.redaction import Redactor
from hansa.tenants.secrets import store
from hansa.tenants.secrets.keys import DataKeys
from hansa.tenants.secrets.model import KEPT_VERSIONS, LARGEST, MOST_NAMES, NAME, PATH, SHORTEST, Kept, Sealed

OUTSIDE_SECONDS = 15.0
"""How long a value of a secret source is used before it is asked again."""
OUTSIDE_KEPT = 1000
Outside = tuple[float, Mapping[str, str]]
Hosts = Sequence[str] | None


class MissingSecret(NotFound):
    """An object names a secret that its tenant does not have, or a key that the secret does not hold."""

    code, title = "secret_missing", "No such secret"


class TenantSecrets:
    """The secrets of tenants. What is looked up is told to `redactor` first."""

    def __init__(self, database: Database, keyring: Keyring, redactor: Redactor) -> None:
        self.keys = DataKeys(database, keyring)
        self._database = database
        self.keyring = keyring
        self._redactor = redactor
        self._outside: dict[tuple[str, str, str], Outside] = {}

    async def prepare(self, tenant_id: UUID) -> None:
        """Ask the key provider for what `put` needs, before a transaction is open. Raises `SecretsAway` or `SecretsRefused`."""
        await self.keys.open(tenant_id, (await self.keys.ensure(tenant_id)).stored)

    async def put(self, connection: Connection, principal: Principal, *, name: str, value: str, hosts: Hosts = None) -> str:
        """Keep a value as the next version of a secret, in the caller's transaction, after `prepare`; how people see it, as JSON text.
        `hosts`: the only ones that it is sent to; empty: it is tied to none; None: to those of the version before."""
        _check_value(value)
        _check_hosts(hosts)
        version = await self._next(connection, name)
        key = await store.newest_key(connection)
        if key is None:
            raise Conflict("the tenant's data key is being destroyed", hint="The tenant is being deleted.")
        opened = await self.keys.open(principal.tenant_id, key.stored)
        bound = envelope.binding(principal.tenant_id, name, version)
        sealed = Sealed(name, version, key.generation, envelope.seal(opened, value.encode(), bound))
        await store.insert_sealed(connection, sealed, hosts=hosts, made_by=principal.name)
        return await self._put(connection, principal, name, version)

    async def refer(self, connection: Connection, principal: Principal, *, name: str, place: tuple[str, str], hosts: Hosts = None) -> str:
        """Keep, as the next version of a secret, where another system has it, source and path; how people see it, as JSON text."""
        source, path = place
        _check_hosts(hosts)
        if source not in self.keyring.sources():
            loaded = ", ".join(self.keyring.sources()) or "none"
            raise _invalid("source", f"no loaded plugin brings the secret source {source[:80]!r} (loaded: {loaded})")
        if not PATH.fullmatch(path) or len(path) > 512:
            raise _invalid("path", "must be letters, digits, `.`, `_`, `-` and `/`, at most 512; no part may begin with a dot")
        version = await self._next(connection, name)
        await store.insert_reference(connection, name, version, place=place, hosts=hosts, made_by=principal.name)
        return await self._put(connection, principal, name, version)

    async def get(self, principal: Principal, name: str) -> str:
        """A secret as people see it, as JSON text."""
        async with self._database.tenant(principal.tenant_id) as connection:
            body = await store.read(connection, name)
        if body is None:
            raise _missing(name)
        return body

    async def page(self, principal: Principal, *, after: str, limit: int) -> tuple[list[str], str | None]:
        """Secrets by name, and where the next page begins."""
        async with self._database.tenant(principal.tenant_id) as connection:
            rows = await store.page(connection, after, limit + 1)
        return [body for _, body in rows[:limit]], rows[limit - 1][0] if len(rows) > limit else None

    async def names(self, tenant_id: UUID) -> set[str]:
        """Names of all secrets of a tenant."""
        async with self._database.tenant(tenant_id) as connection:
            return await store.names(connection)

    async def delete(self, principal: Principal, name: str) -> None:
        """Delete all versions of a secret that no object names."""
        async with self._database.tenant(principal.tenant_id) as connection:
            users = await store.users(connection, name)
            if users:
                raise Conflict(f"objects still name the secret {name!r}: {', '.join(users)}", hint="Change or delete these objects first.")
            if not await store.delete(connection, name):
                raise _missing(name)
            await record(connection, principal.did(Action.SECRET_DELETED, f"Secret/{name}"))

    async def value(self, tenant_id: UUID, name: str, key: str | None = None) -> str:
        """What a secret holds now, or what its `key` holds when it is a JSON object, or several values of a source. If it is tied to
        hosts, its holder is narrowed to them, see `hansa.egress.narrowing.narrow`.

        Raises `MissingSecret`, `Damaged`, `SecretsAway` or `SecretsRefused`.
        """
        kept = await store.find(self._database, tenant_id, name)
        if kept is None:
            raise MissingSecret(f"there is no secret {name!r}", hint=f"Set it: hansa secrets set {name}")
        with of_the_platform():
            if kept.source is not None and kept.path is not None:
                values = await self._read(kept.source, kept.tenant, kept.path)
                whole = values["value"] if list(values) == ["value"] else None
            else:
                whole = await self._unsealed(tenant_id, name, kept)
                values = _members(whole)
        if kept.hosts is not None:
            narrow(f"the list of the secret {name!r} (hosts)", kept.hosts)
        for each in (*values.values(), *(() if whole is None else (whole,))):
            self._redactor.learn(tenant_id, name, each)
        if key is None and whole is None:
            raise MissingSecret(f"the secret {name!r} holds several values", hint=f"Name one by `key`: {', '.join(sorted(values)[:20])}")
        if key is None or (whole is not None and key == "value" and "value" not in values):
            return whole or ""
        if key not in values:
            raise MissingSecret(
                f"the secret {name!r} has no key {key!r}", hint="It must be a JSON object with texts, or its source have it."
            )
        return values[key]

    async def _unsealed(self, tenant_id: UUID, name: str, kept: Kept) -> str:
        key = kept.key
        if key is None or kept.sealed is None:
            raise Damaged(f"the data key of the secret {name!r} is gone", hint="Set the secret again.")
        opened = await self.keys.open(tenant_id, key)
        return envelope.unseal(opened, kept.sealed, envelope.binding(tenant_id, name, kept.version)).decode()

    async def _read(self, source: str, tenant: str, path: str) -> Mapping[str, str]:
        place = (source, tenant, path)
        known = self._outside.get(place)
        if known is not None and known[0] > clock.monotonic():
            return known[1]
        values = await self.keyring.read(source, tenant, path)
        if len(self._outside) >= OUTSIDE_KEPT:
            self._outside.clear()
        self._outside[place] = (clock.monotonic() + OUTSIDE_SECONDS, values)
        return values

    async def _next(self, connection: Connection, name: str) -> int:
        if not NAME.fullmatch(name):
            raise _invalid("name", f"{name[:80]!r} must be 1 to 63 lower-case letters, digits and `-`, beginning and ending with no `-`")
        version = await store.next_version(connection, name)
        if version == 1 and await store.count_names(connection) >= MOST_NAMES:
            raise LimitExceeded(f"a tenant has at most {MOST_NAMES} secrets", hint="Delete some, or put several values into one as JSON.")
        return version

    async def _put(self, connection: Connection, principal: Principal, name: str, version: int) -> str:
        await store.prune(connection, name, below=version - KEPT_VERSIONS + 1)
        body = await store.read(connection, name)
        if body is None:
            raise _missing(name)
        told = {"version": version, "hosts": json.loads(body)["hosts"]}
        await record(connection, principal.did(Action.SECRET_SET, f"Secret/{name}", after=told))
        return body


def _check_value(value: str) -> None:
    if len(value) < SHORTEST:
        raise _invalid("value", f"is shorter than {SHORTEST} characters: it could be guessed, and not be kept out of logs")
    if len(value.encode()) > LARGEST:
        raise _invalid("value", f"is larger than {LARGEST} bytes")


def _check_hosts(hosts: Hosts) -> None:
    for entry in hosts or ():
        try:
            parse_entry(entry)
        except Misconfigured as error:
            raise _invalid("hosts", f"{error.detail}; {error.hint}") from error


def _members(text: str) -> Mapping[str, str]:
    """The texts of a JSON object; nothing of any other text."""
    try:
        found: Any = json.loads(text) if text.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        return {}
    fields = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    return {name: each for name, each in fields.items() if isinstance(each, str)}


def _invalid(path: str, message: str) -> Invalid:
    return Invalid(f"{path}: {message}", errors=(FieldError(path, "range" if path == "value" else "pattern", message),))


def _missing(name: str) -> NotFound:
    return NotFound(f"there is no secret {name[:80]!r}")
