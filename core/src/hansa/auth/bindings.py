"""Role bindings of a Tenant: who has which roles. Pure."""

from collections.abc import Iterable, Sequence

from hansa_crds import RoleBinding


def account_roles(name: str, own: Sequence[str], bindings: Iterable[RoleBinding]) -> tuple[str, ...]:
    """The roles of a service account: its own and those bound to it."""
    return tuple(dict.fromkeys((*own, *roles_of(bindings, service_account=name))))


def roles_of(bindings: Iterable[RoleBinding], *, user: str = "", groups: Sequence[str] = (), service_account: str = "") -> tuple[str, ...]:
    """The roles that bindings give to one subject, each once, in their order. Users and groups are named `issuer:name`."""
    found: dict[str, None] = {}
    for binding in bindings:
        named = user in binding.users or service_account in binding.service_accounts
        if named or any(group in binding.groups for group in groups):
            found |= dict.fromkeys(binding.roles)
    return tuple(found)
