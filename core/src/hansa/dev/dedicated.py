"""Databases on the embedded PostgreSQL that tenants have to themselves (`hansa up --dedicated NAME`): files that tell processes of them.

Which there are is kept in the data folder, so that the next start knows them too. Must not make the databases: `hansa migrate` does.
"""

import tomllib
from collections.abc import Collection
from urllib.parse import urlsplit

from hansa.db.dedicated import DEFAULT, NAME
from hansa.dev.environment import ROLES, Places, role_url
from hansa.dev.failures import FolderDamaged
from hansa.errors import Misconfigured

FILE, FOR_MIGRATE = "dedicated.toml", "dedicated-for-migrate.toml"
"""The second one has the admin's URLs too, and is for `hansa migrate` alone."""


def keep_dedicated(places: Places, names: Collection[str]) -> tuple[str, str]:
    """Write both files, for these tenants and for those of former starts; their paths, empty when there are none."""
    folder = places.folder
    for name in names:
        if NAME.fullmatch(name) is None or name == DEFAULT:
            raise Misconfigured(f"--dedicated {name}: is no name of a tenant that can have a database to itself")
    path, for_migrate = folder.secrets / FILE, folder.secrets / FOR_MIGRATE
    try:
        known = set(tomllib.loads(path.read_text()))
    except FileNotFoundError:
        known = set[str]()
    except ValueError as error:
        raise FolderDamaged(f"{path} can't be read: {error}", hint="Put back the file from a backup of the data folder.") from error
    tenants = sorted(known.union(names))
    if not tenants:
        return "", ""
    tables: dict[bool, str] = {}
    for admin in (False, True):
        tables[admin] = "".join(_table(places, tenant, admin=admin) for tenant in tenants)
    folder.write(path, tables[False].encode(), mode=0o600)
    folder.write(for_migrate, tables[True].encode(), mode=0o600)
    return str(path), str(for_migrate)


def _table(places: Places, tenant: str, *, admin: bool) -> str:
    url = urlsplit(places.database)._replace(path=f"/hansa-{tenant}").geturl()
    lines = [f"[{tenant}]\n", f'url = "{url}"\n' if admin else ""]
    for variable, (role, secret) in ROLES.items():
        field = variable.removeprefix("HANSA_DATABASE_").lower()
        lines.append(f'{field} = "{role_url(url, role, places.folder.secret(secret))}"\n')
    return "".join(lines) + "\n"
