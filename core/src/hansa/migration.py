"""`hansa migrate`: brings roles, schema, first tenant, region and key to where this code needs them.

Apart from `process`, so that serving processes never load the migration tools.
"""

from hansa.auth.keys import read_pepper
from hansa.db.migrate import migrate as upgrade
from hansa.db.pool import open_owner
from hansa.db.roles import ensure_roles
from hansa.settings import Settings
from hansa.tenants.service import ensure_defaults


async def migrate(settings: Settings) -> tuple[str, str]:
    """Do all that is missing; (schema revision, what was done with the key file). Safe to repeat, safe side by side."""
    await ensure_roles(settings.database)
    revision = await upgrade(settings.database.url)
    async with open_owner(settings.database) as connection:
        told = await ensure_defaults(
            connection, settings.place.region, key_file=settings.key.file, pepper=read_pepper(settings.key.pepper_file)
        )
    return revision, told
