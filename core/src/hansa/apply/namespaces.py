"""Which tenant a namespace leads to: the tenant of that name, or the one whose object claims it. Each leads to one.

What a request finds out before its transaction is asked again within it, of the tenant itself: a claim may have gone meanwhile.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from hansa.apply import store
from hansa.apply.model import Item, Leads
from hansa.auth.model import Principal
from hansa.db.pool import Connection, Database
from hansa.errors import FieldError, Invalid
from hansa_crds import Tenant, check


async def leading(database: Database, principal: Principal, names: Iterable[str | None]) -> dict[str, str]:
    """The tenants that names of namespaces lead to, as far as that is the caller's business; what is missing leads to the tenant of that
    name, if there is one."""
    asked = sorted({name for name in names if name and name != principal.tenant})
    if not asked:
        return {}
    if principal.may("tenants:act"):
        return await store.tenants_of(database, asked)
    async with database.tenant(principal.tenant_id) as connection:
        own = await store.namespaces(connection)
    return {name: principal.tenant for name in asked if name in own}


async def of_items(database: Database, principal: Principal, items: list[Item]) -> Leads:
    """The same for the objects of a request, of which Tenants count as they will be."""
    brought = (_tenant(item.manifest) for item in items if principal.may("platform:write"))
    tenants = [tenant for tenant in brought if tenant is not None]
    named = {_namespace(item.manifest) for item in items} | {name for tenant in tenants for name in tenant.spec.namespaces}
    claimed = await leading(database, principal, named)
    later = {tenant.metadata.name for tenant in tenants}
    tenants_by_name = {name: tenant for name, tenant in claimed.items() if tenant not in later}
    for tenant in tenants:
        tenants_by_name |= dict.fromkeys(tenant.spec.namespaces, tenant.metadata.name)
    return Leads(tenants_by_name, claimed)


def _tenant(manifest: Any) -> Tenant | None:
    fields = cast("dict[str, Any]", manifest) if isinstance(manifest, dict) else {}
    if fields.get("kind") != "Tenant":
        return None
    found, problems = check(fields)
    return found if isinstance(found, Tenant) and not problems else None


class _Meta(msgspec.Struct):
    namespace: str | None = None


class _Head(msgspec.Struct):
    metadata: _Meta


def _namespace(manifest: Any) -> str | None:
    try:
        return msgspec.convert(manifest, _Head).metadata.namespace
    except msgspec.ValidationError:
        return None  # it is refused for that


async def claim(connection: Connection, found: Tenant, known: Mapping[str, str]) -> None:
    """Keep the namespaces of the connection's tenant. `known`: who claims what now, for the message. Raises `Invalid` when one is another
    tenant's, or is no longer named and objects stand in it."""
    name, wanted = found.metadata.name, found.spec.namespaces
    have = await store.namespaces(connection)
    dropped = sorted(have - {name, *wanted})
    if dropped:
        standing = await store.inhabited(connection, dropped)
        if standing:
            raise _invalid("spec.namespaces", "in_use", _in_use(standing))
        await store.unclaim(connection, dropped)
    missing = {name, *wanted} - have
    refused = sorted(missing - await store.claim(connection, sorted(missing))) if missing else []
    if refused:
        taken = refused[0]
        if taken == name:
            raise _invalid("metadata.name", "duplicate", f"{name!r} is a namespace that another tenant claims: choose another name")
        by = f"tenant {known[taken]!r} has it" if known.get(taken, name) != name else "another tenant has it"
        text = f"the namespace {taken!r} leads to one tenant only, and {by}: drop it there first, or choose another one"
        raise _invalid(f"spec.namespaces[{wanted.index(taken)}]", "duplicate", text)


def _in_use(standing: list[store.Standing]) -> str:
    told = ", ".join(f"{each.many} in {each.namespace!r} ({each.one}{', ...' if each.many > 1 else ''})" for each in standing)
    return f"objects stand in namespaces that are not named any more: {told}. Delete them there first, or go on naming these namespaces"


def _invalid(path: str, code: str, message: str) -> Invalid:
    return Invalid(f"{path}: {message}", errors=(FieldError(path, code, message),))
