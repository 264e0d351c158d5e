"""Role bindings of a Tenant: who has which roles. Pure."""

from collections.abc import Iterable, Sequence

from hansa.auth.model import IN_RUNS, Starter, permissions_of
from hansa_crds import RoleBinding


def account_roles(name: str, own: Sequence[str], bindings: Iterable[RoleBinding]) -> tuple[str, ...]:
    """The roles of a service account: its own and those bound to it."""
    return tuple(dict.fromkeys((*own, *roles_of(bindings, service_account=name))))


def bound_of(agent: str, bindings: Iterable[RoleBinding], owner: Starter | None) -> frozenset[str]:
    """What runs of an agent may do at most, whoever starts them: what its owner could, and if bindings name it, what they allow."""
    named = [binding.roles for binding in bindings if agent in binding.agents]
    may = IN_RUNS if owner is None or owner.may is None else IN_RUNS.intersection(owner.may)
    return may & permissions_of((role for roles in named for role in roles), None) if named else may


def authority_of(bound: frozenset[str], starter: Starter | None) -> frozenset[str]:
    """What one run may do: never more than whoever started it, be that an agent's run, which has handed on no more than it had itself."""
    return bound if starter is None or starter.may is None else bound.intersection(starter.may)


def roles_of(bindings: Iterable[RoleBinding], *, user: str = "", groups: Sequence[str] = (), service_account: str = "") -> tuple[str, ...]:
    """The roles that bindings give to one subject, each once, in their order. Users and groups are named `issuer:name`."""
    found: dict[str, None] = {}
    for binding in bindings:
        named = user in binding.users or service_account in binding.service_accounts
        if named or any(group in binding.groups for group in groups):
            found |= dict.fromkeys(binding.roles)
    return tuple(found)
