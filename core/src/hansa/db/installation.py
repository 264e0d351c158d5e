"""Whose a database is: a platform's, or the own one of one tenant of a platform. Said in it, so that a wrong URL does no harm."""

from urllib.parse import unquote, urlsplit
from uuid import UUID

import asyncpg

from hansa.db.pool import Connection, patiently
from hansa.errors import Misconfigured
from hansa.settings import DatabaseSettings

NEW = "Make a new database for it."


async def platform_of(connection: Connection) -> UUID:
    """The id of the installation whose database this is."""
    return await connection.fetchval("SELECT id FROM hansa.installation")


async def ensure_database(url: str, timeout: float) -> None:
    """Make a database that is not there, on its server, if its admin may. Raises `Misconfigured`, `Unavailable`."""
    parts = urlsplit(url)
    name, server = unquote(parts.path.removeprefix("/")), parts._replace(path="/postgres").geturl()
    try:
        found = await patiently(lambda: asyncpg.connect(url, timeout=timeout), timeout)
    except Misconfigured as error:
        if not isinstance(error.__cause__, asyncpg.InvalidCatalogNameError):
            raise
    else:
        await found.close()
        return
    connection = await patiently(lambda: asyncpg.connect(server, timeout=timeout), timeout)
    try:
        quoted = await connection.fetchval("SELECT quote_ident($1)", name)
        await connection.execute(f"CREATE DATABASE {quoted}")
    except asyncpg.DuplicateDatabaseError:
        pass  # somebody else did, at this moment
    except asyncpg.InsufficientPrivilegeError as error:
        raise Misconfigured(f"there is no database {name!r}, and its admin may make none", hint="CREATE DATABASE it.") from error
    finally:
        await connection.close()


async def admit(settings: DatabaseSettings, platform: UUID, tenant_id: UUID, *, name: str) -> None:
    """Raise `Misconfigured` where a database, seen by its admin, is not new and not this tenant's: before anything in it is touched."""
    connection = await patiently(lambda: asyncpg.connect(settings.url, timeout=settings.timeout_seconds), settings.timeout_seconds)
    try:
        if not await connection.fetchval("SELECT to_regclass('hansa.tenants') IS NOT NULL"):
            return
        if await connection.fetchval("SELECT pg_has_role('hansa_owner', 'SET')"):
            await connection.execute("SET ROLE hansa_owner")
        row = None
        if await connection.fetchval("SELECT to_regclass('hansa.installation') IS NOT NULL"):
            row = await connection.fetchrow("SELECT platform, tenant FROM hansa.installation")
        if row is None or (row["tenant"] is not None and (row["platform"], row["tenant"]) != (platform, tenant_id)):
            raise Misconfigured(f"the database can't be that of tenant {name!r}: it is another one's already", hint=NEW)
    except asyncpg.InsufficientPrivilegeError as error:
        raise Misconfigured(f"the database can't be that of tenant {name!r}: it is not its admin's to look into", hint=NEW) from error
    finally:
        await connection.close()


async def claim(connection: Connection, platform: UUID, tenant_id: UUID, *, name: str) -> None:
    """Make the connection's database, as the owner of its schema, a tenant's own. Raises `Misconfigured` where it is somebody else's."""
    refused = await connection.fetchval("SELECT hansa.installation_claim($1, $2, $3)", platform, tenant_id, name)
    if refused is not None:
        raise Misconfigured(f"the database can't be that of tenant {name!r}: {refused}", hint=NEW)


async def bind(connection: Connection) -> bool:
    """See to one table of the connection's database, a tenant's own, that would take rows of others; false: there is none."""
    return await connection.fetchval("SELECT hansa.installation_bind()") is not None


async def lets_in(settings: DatabaseSettings, tenant_id: UUID, *, name: str) -> None:
    """Raise `Misconfigured` unless both roles may log in with the passwords of their URLs, and no other tenant is there already."""
    for variable, url in (("app_url", settings.app_url), ("system_url", settings.system_url)):
        try:
            connection = await patiently(lambda url=url: asyncpg.connect(url, timeout=settings.timeout_seconds), settings.timeout_seconds)
        except Misconfigured as error:
            raise Misconfigured(
                f"{variable}: {error.detail}; the roles of a server that has them already are left as they are",
                hint="Give the passwords that hansa_app and hansa_system have there.",
            ) from error
        try:
            there = variable == "system_url" and await connection.fetchval("SELECT to_regclass('hansa.tenants') IS NOT NULL")
            if there and await connection.fetchval("SELECT EXISTS (SELECT FROM hansa.tenants WHERE tenant_id <> $1)", tenant_id):
                raise Misconfigured(f"the database can't be that of tenant {name!r}: it holds rows of other tenants", hint=NEW)
        finally:
            await connection.close()
