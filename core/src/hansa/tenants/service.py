"""What a first start makes: tenant `default`, the local region, and the first API key."""

import os
import uuid
from pathlib import Path

from hansa.auth import keys
from hansa.auth import store as key_store
from hansa.auth.service import issue_key
from hansa.db.pool import Connection
from hansa.errors import Misconfigured, Unauthenticated
from hansa.tenants import store

DEFAULT_TENANT = "default"
FIRST_KEY = "first"
NAMESPACE = uuid.UUID("6b1f0a52-6d1d-5f0e-9a51-3f2f3f8c7a10")
"""Tenant ids follow from their names, so that an installation made again over an old database finds its rows."""


def tenant_id(name: str) -> uuid.UUID:
    """The id of a tenant by its name."""
    return uuid.uuid5(NAMESPACE, name)


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
    text = await issue_key(connection, tenant, name=FIRST_KEY, roles=["platform-admin"], pepper=pepper)
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
