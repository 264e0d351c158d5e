"""In which database a tenant is: said when its Tenant is first applied, and not changed afterwards. Of one with a database of its own the
platform's keeps what must be known before the tenant is, and its Tenant; the own one has a copy of that, and all the rest.
"""

from typing import Any

import msgspec

from hansa.db.dedicated import DEFAULT, VARIABLE
from hansa.db.pool import Connection, enter_platform, enter_tenant, has_own
from hansa.errors import FieldError
from hansa.ids import tenant_id
from hansa.tenants import store
from hansa_crds import Tenant

PLACE = "spec.isolation.database"
MOVING = "a tenant is not moved while it is here: export it, delete it, apply it anew and import the export"


def misplaced(connection: Connection, found: Tenant, known: Any) -> tuple[FieldError, ...]:
    """Why a Tenant can't be in the database that it says. `known`: its row in the platform's database, if there is one."""
    name, wanted = found.metadata.name, found.spec.isolation.database
    own = has_own(connection, tenant_id(name))
    if known is not None and known["database"] != wanted:
        where = "the platform's database" if wanted == "Dedicated" else "a database of its own"
        return (FieldError(PLACE, "immutable", f"the tenant {name!r} is there, with its rows in {where}; {MOVING}"),)
    if wanted == "Dedicated" and name == DEFAULT:
        return (FieldError(PLACE, "reference", "the tenant `default` is the installation's own, and always in the platform's database"),)
    if wanted == "Dedicated" and not own:
        text = f"this control plane knows no database for tenant {name!r}: name one in {VARIABLE}, run `hansa migrate` and start it again"
        return (FieldError(PLACE, "reference", text),)
    if wanted == "Shared" and own:
        text = f"a database of its own is named for tenant {name!r} in {VARIABLE}: say Dedicated, or take it out there"
        return (FieldError(PLACE, "reference", text),)
    return ()


def elsewhere(connection: Connection, tenant: str, known: Any) -> tuple[FieldError, ...]:
    """Why nothing can be applied in a tenant by this process: it would look for its rows where they are not. `known`: its row."""
    if known is None or (known["database"] == "Dedicated") == has_own(connection, tenant_id(tenant)):
        return ()
    text = f"the tenant {tenant!r} is in another database than this control plane knows for it ({VARIABLE}); start it again"
    return (FieldError("metadata.namespace", "unavailable", text),)


async def copy_object(connection: Connection, name: str) -> None:
    """Have in a tenant's own database the Tenant object that the platform's has, just written; nothing for a tenant that has none. The
    connection is in the platform's, before and afterwards. Safe to repeat, which makes whole what was cut off."""
    own = tenant_id(name)
    if has_own(connection, own):
        kept = await store.tenant_object(connection)
        await enter_tenant(connection, own)
        await store.put_tenant_object(connection, kept)
        await store.set_generation(connection, int(msgspec.json.decode(kept)["generation"]))
        await enter_platform(connection, own)
