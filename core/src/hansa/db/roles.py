"""The three roles, made and kept right by the admin before any migration runs.

hansa_owner (NOLOGIN) owns the schema; hansa_app serves under row-level security; hansa_system claims and sweeps.
"""

import asyncio
from urllib.parse import unquote, urlsplit

import asyncpg

from hansa.db.pool import patiently
from hansa.errors import Misconfigured
from hansa.settings import DatabaseSettings

LOGIN_ROLES = ("hansa_app", "hansa_system")
RACED = (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError, asyncpg.InternalServerError)
"""What PostgreSQL says of a role that somebody else makes, or changes ("tuple concurrently updated"), at this moment."""
TRIES = 10


async def ensure_roles(settings: DatabaseSettings, *, ours: bool = True) -> None:
    """Create or repair the roles, their passwords (from the app and system URLs) and the schema. Safe to run at any time, by many.
    `ours`: whether roles that are there may be given another password; on a server that others use too they may not."""
    if not settings.url:
        raise Misconfigured("HANSA_DATABASE_URL, the admin URL, is not set", hint="It is needed only to migrate.")
    passwords = {"hansa_app": _password(settings.app_url), "hansa_system": _password(settings.system_url)}
    connection = await patiently(lambda: asyncpg.connect(settings.url, timeout=settings.timeout_seconds), settings.timeout_seconds)
    try:
        # One at a time over all that start with this database: CREATE ROLE has no IF NOT EXISTS. Roles are the server's, and a lock is
        # one database's: who starts with another one may be in the way.
        await connection.execute("SELECT pg_advisory_lock(hashtextextended('hansa.roles', 0))")
        for left in reversed(range(TRIES)):
            try:
                await _set_up(connection, passwords, ours=ours)
                break
            except RACED:
                if not left:
                    raise
                await asyncio.sleep(0.05)
    except asyncpg.InsufficientPrivilegeError as error:
        raise Misconfigured(
            f"the admin of HANSA_DATABASE_URL may not set up roles: {error}",
            hint="It needs CREATEROLE and CREATE on the database, or be a superuser.",
        ) from error
    finally:
        await connection.close()


async def _set_up(connection: asyncpg.Connection, passwords: dict[str, str], *, ours: bool) -> None:
    await _ensure_role(connection, "hansa_owner", "NOLOGIN")
    for role in LOGIN_ROLES:
        literal = await connection.fetchval("SELECT quote_literal($1::text)", passwords[role])
        # A new one has its password from the first: a role that is left without is not given one where it is not ours.
        if not await _ensure_role(connection, role, "LOGIN", first=f"PASSWORD {literal}") and ours:
            await connection.execute(f"ALTER ROLE {role} PASSWORD {literal}")
    # PostgreSQL 16 and later: the right to SET ROLE is granted apart from membership.
    await connection.execute("GRANT hansa_owner TO CURRENT_USER WITH SET TRUE")
    await connection.execute("CREATE SCHEMA IF NOT EXISTS hansa AUTHORIZATION hansa_owner")
    await connection.execute("GRANT USAGE ON SCHEMA hansa TO hansa_app, hansa_system")


async def _ensure_role(connection: asyncpg.Connection, role: str, login: str, *, first: str = "") -> bool:
    """Whether it is new; then it has `first` too."""
    attributes = f"{login} NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION"
    known = await connection.fetchrow("SELECT rolsuper OR rolbypassrls AS too_much FROM pg_roles WHERE rolname = $1", role)
    if known is None:
        await connection.execute(f"CREATE ROLE {role} {attributes} {first}")
    elif known["too_much"]:
        await connection.execute(f"ALTER ROLE {role} {attributes}")
    return known is None


def _password(url: str) -> str:
    password = urlsplit(url).password
    if not password:
        raise Misconfigured("HANSA_DATABASE_APP_URL and HANSA_DATABASE_SYSTEM_URL need a password each", hint="`hansa up` makes them.")
    return unquote(password)
