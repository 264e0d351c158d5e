"""Role bindings of a Tenant: who has which roles. Pure."""

from collections.abc import Iterable, Sequence

from hansa_crds import RoleBinding


def roles_of(bindings: Iterable[RoleBinding], *, user: str = "", groups: Sequence[str] = ()) -> tuple[str, ...]:
    """The roles that bindings give to one subject, each once, in their order. Users and groups are named `issuer:name`."""
    found: dict[str, None] = {}
    for binding in bindings:
        if user in binding.users or any(group in binding.groups for group in groups):
            found |= dict.fromkeys(binding.roles)
    return tuple(found)
