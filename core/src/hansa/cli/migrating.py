"""`hansa migrate`. Must not be imported by any other command: it imports the migration tools."""

import asyncio
import os

from hansa import settings
from hansa.cli.output import write
from hansa.migration import migrate as bring_up_to_date


def migrate() -> None:
    """Bring the database to this version's schema, make the first tenant, region and key. Safe to repeat."""
    revision, told = asyncio.run(bring_up_to_date(settings.load(os.environ)))
    write(f"schema at revision {revision}; {told}")
