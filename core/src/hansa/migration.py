"""`hansa migrate`: brings roles, schema, first tenant, region and key to where this code needs them, in the platform's database, and roles
and schema in those that tenants have to themselves.

Apart from `process`, so that serving processes never load the migration tools.
"""

from uuid import UUID

import msgspec

from hansa.auth.keys import read_pepper
from hansa.db.dedicated import Urls, read_dedicated
from hansa.db.installation import admit, bind, claim, ensure_database, lets_in, platform_of
from hansa.db.migrate import migrate as upgrade
from hansa.db.pool import open_owner, translated
from hansa.db.roles import ensure_roles
from hansa.errors import Misconfigured, Unavailable
from hansa.ids import tenant_id
from hansa.settings import DatabaseSettings, Settings
from hansa.tenants.service import ensure_defaults
from hansa.tenants.store import ensure_region


async def migrate(settings: Settings) -> tuple[str, str]:
    """Do all that is missing; (schema revision, what was done with the key file and with tenants' own databases). Safe to repeat, safe
    side by side. Raises `Misconfigured` when some of the latter could not be done; all others are."""
    dedicated = read_dedicated(settings.database.dedicated_file)
    await ensure_roles(settings.database)
    revision = await upgrade(settings.database.url)
    async with open_owner(settings.database) as connection:
        told = await ensure_defaults(
            connection, settings.place.region, key_file=settings.key.file, pepper=read_pepper(settings.key.pepper_file)
        )
        platform = await platform_of(connection)
    failed: list[str] = []
    for name, urls in dedicated.items():
        try:
            async with translated():
                await _migrate_own(settings, name, urls, platform)
        except (Misconfigured, Unavailable) as error:
            failed.append(f"{name}: {error.detail}")
    if failed:
        raise Misconfigured(f"the own databases of some tenants were not migrated: {'; '.join(failed)}", hint="All others were.")
    return revision, f"{told}; tenants with a database of their own: {', '.join(dedicated)}" if dedicated else told


async def _migrate_own(settings: Settings, name: str, urls: Urls, platform: UUID) -> None:
    if not urls.url:
        raise Misconfigured("`url`, the admin's, is missing")
    its: DatabaseSettings = msgspec.structs.replace(settings.database, **msgspec.structs.asdict(urls))
    await ensure_database(its.url, its.timeout_seconds)
    await admit(its, platform, tenant_id(name), name=name)
    await ensure_roles(its, ours=False)
    await lets_in(its, tenant_id(name), name=name)
    await upgrade(its.url)
    async with open_owner(its) as connection:
        await claim(connection, platform, tenant_id(name), name=name)
        await ensure_region(connection, settings.place.region)
    bound = True
    while bound:
        async with open_owner(its) as connection:
            bound = await bind(connection)
