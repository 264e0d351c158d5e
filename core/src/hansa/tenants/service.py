"""All tenants, and what a first start makes: tenant `default`, the local region, and the first API key."""

import os
import uuid
from pathlib import Path

import msgspec

from hansa import clock
from hansa.auth import keys
from hansa.auth import store as key_store
from hansa.auth.model import Grant, Principal
from hansa.auth.service import issue_key
from hansa.db.pool import Connection, Database
from hansa.errors import Forbidden, Misconfigured, NotFound, Unauthenticated
from hansa.tenants import store

DEFAULT_TENANT = "default"
FIRST_KEY = "first"
KNOWN, KNOWN_SECONDS = 10_000, 2.0
NAMESPACE = uuid.UUID("6b1f0a52-6d1d-5f0e-9a51-3f2f3f8c7a10")
"""Tenant ids follow from their names, so that an installation made again over an old database finds its rows."""


def tenant_id(name: str) -> uuid.UUID:
    """The id of a tenant by its name."""
    return uuid.uuid5(NAMESPACE, name)


class Tenants:
    """Tenants as those see them who are above all of them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, float] = {}

    async def acting(self, principal: Principal, name: str) -> Principal:
        """The caller as it acts in another tenant. Raises `Forbidden`, alike whether or not there is such a tenant, or `NotFound`."""
        if not principal.may("tenants:act"):
            raise Forbidden(
                f"your key belongs to tenant {principal.tenant!r} and acts in no other: this needs the permission tenants:act",
                hint="Leave the header Hansa-Tenant (--tenant, HANSA_TENANT) out.",
            )
        if self._known.get(name, 0.0) <= clock.monotonic():
            if await store.find_tenant(self._database, name) is None:
                raise _missing(name)
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[name] = clock.monotonic() + KNOWN_SECONDS
        return msgspec.structs.replace(principal, tenant_id=tenant_id(name), tenant=name, home=principal.home or principal.tenant)

    async def get(self, name: str) -> str:
        """A tenant as JSON text."""
        body = await store.read_tenant(self._database, name)
        if body is None:
            raise _missing(name)
        return body

    async def page(self, *, after: str, limit: int) -> tuple[list[str], str | None]:
        """Tenants by name, and where the next page begins."""
        rows = await store.page_tenants(self._database, after, limit + 1)
        return [row["body"] for row in rows[:limit]], rows[limit - 1]["name"] if len(rows) > limit else None


def _missing(name: str) -> NotFound:
    return NotFound(f"there is no tenant {name[:80]!r}", hint="A Tenant object of that name, once applied, makes it.")


async def ensure_defaults(connection: Connection, region: str, *, key_file: str, pepper: bytes) -> str:
    """Make what is missing, as the owner and in one transaction; says what was done with the key file.

    The key file is written (mode 0600) when it is not there or holds a key that this database does not know.
    """
    await store.lock_defaults(connection)
    tenant = await store.ensure_tenant(connection, tenant_id(DEFAULT_TENANT), DEFAULT_TENANT)
    await store.ensure_region(connection, region)
    if not key_file:
        return "no key file is configured"
    if await _known(connection, Path(key_file), pepper):
        return "the key file is in order"
    await key_store.revoke_keys(connection, FIRST_KEY)
    grant = Grant(name=FIRST_KEY, roles=("platform-admin",), made_by="hansa migrate")
    text, _ = await issue_key(connection, tenant, grant=grant, pepper=pepper)
    _write(Path(key_file), text)
    return f"a new API key was written to {key_file}"


async def _known(connection: Connection, path: Path, pepper: bytes) -> bool:
    try:
        parsed = keys.parse(path.read_text().strip())
    except (FileNotFoundError, Unauthenticated):
        return False
    found = await key_store.find_digest(connection, parsed.id)
    return found == keys.digest(parsed.secret, pepper)


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
