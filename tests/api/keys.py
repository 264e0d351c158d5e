"""API keys of every role in two tenants, made by the owner of the database as an operator would."""

from collections.abc import Sequence

import msgspec

from hansa.auth.keys import read_pepper
from hansa.auth.model import ROLES, Grant
from hansa.auth.service import issue_key
from hansa.db.pool import open_owner
from hansa.tenants import store as tenant_store
from hansa.tenants.service import DEFAULT_TENANT, tenant_id
from stack import Stack

OTHER_TENANT = "other"


class Keys(msgspec.Struct, frozen=True):
    """Authorization headers: by role in tenant `default`, and one in tenant `other` that may do everything there."""

    of_role: dict[str, dict[str, str]]
    without_role: dict[str, str]
    other_tenant: dict[str, str]


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"authorization": f"Bearer {key}"}


async def issue(stack: Stack, tenant: str, *, name: str, roles: Sequence[str]) -> dict[str, str]:
    """A new key of a tenant, which is made when it is not there."""
    async with open_owner(stack.settings.database) as connection:
        found = await tenant_store.ensure_tenant(connection, tenant_id(tenant), tenant)
        pepper = read_pepper(stack.settings.key.pepper_file)
        text, _ = await issue_key(connection, found, grant=Grant(name=name, roles=tuple(roles)), pepper=pepper)
        return bearer(text)


async def make_keys(stack: Stack) -> Keys:
    """A key of each role, one of none, and one of another tenant."""
    return Keys(
        of_role={role: await issue(stack, DEFAULT_TENANT, name=f"test-{role}", roles=[role]) for role in ROLES},
        without_role=await issue(stack, DEFAULT_TENANT, name="test-nothing", roles=[]),
        other_tenant=await issue(stack, OTHER_TENANT, name="test-other", roles=["tenant-admin"]),
    )
