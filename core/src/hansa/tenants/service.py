"""All tenants, and what a first start makes: tenant `default`, the local region, and the first API key."""

import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from hansa import clock, ids
from hansa.auth import keys
from hansa.auth import store as key_store
from hansa.auth.model import Grant, Principal
from hansa.auth.service import issue_key
from hansa.db.pool import Connection, Database
from hansa.errors import Conflict, Forbidden, Misconfigured, NotFound, Unauthenticated, Unavailable
from hansa.tenants import store
from hansa.tenants.conditions import Condition, Crossed, Facts, Region, conditions_of

DEFAULT_TENANT = "default"
FIRST_KEY = "first"
KNOWN, KNOWN_SECONDS = 10_000, 2.0


def tenant_id(name: str) -> uuid.UUID:
    """The id of a tenant by its name."""
    return ids.tenant_id(name)


class TenantView(msgspec.Struct, frozen=True):
    """A tenant as the platform's people see it."""

    name: str
    id: uuid.UUID
    display_name: str
    state: str
    suspended: bool
    ready: bool
    weight: int
    concurrent_runs: int | None
    requests_per_second: int | None
    workers: str
    database: str
    deletion_policy: str
    prevent_deletion: bool
    generation: int
    created_at: datetime
    conditions: tuple[Condition, ...]


class Tenants:
    """Tenants as those see them who are above all of them."""

    def __init__(self, database: Database, region: str, *, stale_seconds: float) -> None:
        """`stale_seconds`: how old a probe of the walls between tenants may be before it says nothing any more."""
        self._database = database
        self._region = region
        self._stale_seconds = stale_seconds
        self._known: dict[str, float] = {}
        self._changes = 0

    async def acting(self, principal: Principal, name: str) -> Principal:
        """The caller as it acts in another tenant. Raises `Forbidden`, alike whether or not there is such a tenant, or `NotFound`."""
        if not principal.may("tenants:act"):
            raise Forbidden(
                f"your key belongs to tenant {principal.tenant!r} and acts in no other: this needs the permission tenants:act",
                hint="Leave the header Hansa-Tenant (--tenant, HANSA_TENANT) out.",
            )
        if self._known.get(name, 0.0) <= clock.monotonic():
            changes = self._changes
            found = await store.find_tenant(self._database, name)
            if found is None:
                raise missing(name)
            if found["state"] != "active":
                raise closed(name, found["state"])
            self._database.expect(found["tenant_id"], found["database"])
            if len(self._known) >= KNOWN:
                self._known.clear()
            if changes == self._changes:  # it was not closed while it was looked up
                self._known[name] = clock.monotonic() + KNOWN_SECONDS
        here = {"tenant_id": tenant_id(name), "tenant": name, "home": principal.home or principal.tenant, "within": ()}
        return msgspec.structs.replace(principal, **here)

    async def forget(self, _: bytes = b"") -> None:
        """Look at every tenant again: some were closed, here or in another process. What is being looked up is not kept either."""
        self._changes += 1
        self._known.clear()

    async def get(self, name: str) -> TenantView:
        """A tenant, with its conditions."""
        row = await store.read_tenant(self._database, name)
        if row is None:
            raise missing(name)
        return (await self._views([row]))[0]

    async def page(self, *, after: str, limit: int) -> tuple[list[TenantView], str | None]:
        """Tenants by name, and where the next page begins."""
        rows = await store.page_tenants(self._database, after, limit + 1)
        return await self._views(rows[:limit]), rows[limit - 1]["name"] if len(rows) > limit else None

    async def with_status(self, kind: str, name: str, body: str) -> str:
        """An object as JSON text; a Tenant's status is not kept with it, but follows from what the tenant is now."""
        if kind != "Tenant":
            return body
        view = await self.get(name)
        status = {"observedGeneration": view.generation, "state": view.state, "conditions": view.conditions}
        return msgspec.json.encode({**msgspec.json.decode(body), "status": status}).decode()

    async def _views(self, rows: Sequence[Any]) -> list[TenantView]:
        region = await self._region_of(self._database)
        return [await self._view(row, region) for row in rows]

    async def _region_of(self, database: Database) -> Region | None:
        found = await store.read_region(database, self._region)
        return msgspec.convert(dict(found), Region) if found is not None else None

    async def _view(self, row: Any, region: Region | None) -> TenantView:
        trouble = place_trouble(self._database, row)
        if row["database"] != "Dedicated":
            return _view(row, region, trouble, self._stale_seconds)
        probed, crossed = None, row["crossed"]
        if trouble is None:
            own = self._database.of(row["tenant_id"])
            with suppress(Unavailable):
                crossed = await store.read_crossed(own, row["tenant_id"])
                probed = await self._region_of(own)
        # Unless something is open in the platform's, which it shares: of its walls says what was probed there.
        if region is not None and (region.verified or not region.probed):
            told = probed or Region(region.name, region.cordoned, region.changed_at)
            region = msgspec.structs.replace(told, cordoned=region.cordoned, changed_at=region.changed_at)
        return _view({**dict(row), "crossed": crossed}, region, trouble, self._stale_seconds)


def place_trouble(database: Database, row: Any) -> tuple[str, str] | None:
    """Why a tenant can't be worked with in its database: (reason, message) of its condition DatabaseReady."""
    own = database.of(row["tenant_id"])
    if (row["database"] == "Dedicated") != (own is not database):
        return "NotConfigured", "this control plane looks for its rows in another database than they are in (HANSA_DATABASE_DEDICATED_FILE)"
    return None if own.trouble is None else (own.trouble.reason, own.trouble.message)


def _view(row: Any, region: Region | None, trouble: tuple[str, str] | None, stale_seconds: float) -> TenantView:
    put = msgspec.json.decode(row["put"], type=tuple[Condition, ...])
    crossed = msgspec.json.decode(row["crossed"], type=tuple[Crossed, ...])
    facts = msgspec.convert({**dict(row), "put": put, "crossed": crossed, "database_trouble": trouble}, Facts)
    conditions = conditions_of(facts, region, stale_seconds=stale_seconds)
    return msgspec.convert(
        {**dict(row), "id": row["tenant_id"], "ready": conditions[-1].status == "True", "conditions": conditions}, TenantView
    )


def missing(name: str) -> NotFound:
    """What is said of a tenant that is not there."""
    return NotFound(f"there is no tenant {name[:80]!r}", hint="A Tenant object of that name, once applied, makes it.")


def closed(name: str, state: str) -> Conflict:
    """What is said where somebody would act in a tenant that is archived or is being deleted."""
    if state == "archived":
        return Conflict(f"the tenant {name!r} is archived: nobody acts in it", hint=f"`hansa tenants restore {name}` brings it back.")
    return Conflict(f"the tenant {name!r} is being deleted: nobody acts in it", hint="Once it is gone a Tenant object makes a new one.")


async def ensure_defaults(connection: Connection, region: str, *, key_file: str, pepper: bytes) -> str:
    """Make what is missing, as the owner and in one transaction; says what was done with the key file.

    The key file is written (mode 0600) when there is none. A key that stands in it and that this database does not know, made by
    `hansa keys make` or that of a database that was lost, becomes the first key.
    """
    await store.lock_defaults(connection)
    tenant = await store.ensure_tenant(connection, tenant_id(DEFAULT_TENANT), DEFAULT_TENANT)
    await store.ensure_region(connection, region)
    if not key_file:
        return "no key file is configured"
    given = _given(Path(key_file))
    if given and await key_store.find_digest(connection, given.id) == keys.digest(given.secret, pepper):
        return "the key file is in order"
    await key_store.revoke_keys(connection, FIRST_KEY)
    grant = Grant(name=FIRST_KEY, roles=("platform-admin",), made_by="hansa migrate")
    if given and await key_store.admit_key(connection, tenant, given.id, digest=keys.digest(given.secret, pepper), grant=grant):
        return f"the API key in {key_file} is good from now on"
    text, _ = await issue_key(connection, tenant, grant=grant, pepper=pepper)
    _write(Path(key_file), text)
    return f"a new API key was written to {key_file}"


def _given(path: Path) -> keys.ParsedKey | None:
    """The key in the file; None: there is none."""
    try:
        return keys.parse(path.read_text().strip())
    except (FileNotFoundError, Unauthenticated):
        return None


def _write(path: Path, text: str) -> None:
    """Write the key so that it is never readable by others, not even for a moment, and never half there."""
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise Misconfigured(
            f"the API key can't be written to {path}: {error.strerror}", hint="Set HANSA_API_KEY_FILE to a writable place."
        ) from error
