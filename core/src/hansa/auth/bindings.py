"""Role bindings of a Tenant: who has which roles. Pure."""

from collections.abc import Iterable, Sequence, Set

from hansa.auth.model import IN_RUNS, Bound, RolesIn, Starter, limited, permissions_of
from hansa_crds import RoleBinding


def account_bound(name: str, own: Sequence[str], bindings: Iterable[RoleBinding]) -> Bound:
    """What a service account has: its own roles and those bound to it."""
    found = bound_to(bindings, service_account=name)
    return Bound(tuple(dict.fromkeys((*own, *found.roles))), found.within)


def bound_of(agent: str, bindings: Iterable[RoleBinding], owner: Starter | None) -> frozenset[str]:
    """What runs of an agent may do at most, whoever starts them: what its owner could, and if bindings name it, what they allow."""
    named = [binding for binding in bindings if agent in binding.agents]
    may = IN_RUNS if owner is None or owner.may is None else frozenset(owner.may)
    if not named:
        return may
    allowed = set[str]()
    for binding in named:
        given = IN_RUNS & permissions_of(binding.roles, None)
        allowed |= {limited(each, place) for each in given for place in binding.namespaces} if binding.namespaces else given
    return both(may, allowed)


def authority_of(bound: frozenset[str], starter: Starter | None) -> frozenset[str]:
    """What one run may do: never more than whoever started it, be that an agent's run, which has handed on no more than it had itself."""
    return bound if starter is None or starter.may is None else both(bound, frozenset(starter.may))


def both(one: Set[str], other: Set[str]) -> frozenset[str]:
    """What two authorities have in common. What one has everywhere it shares with what the other has in a namespace."""
    return frozenset(each for a, b in ((one, other), (other, one)) for each in a if each in b or each.partition("@")[0] in b)


def places_of(permission: str, may: Iterable[str]) -> tuple[str, ...] | None:
    """The namespaces in which an authority has a permission; None: everywhere."""
    found = set(may)
    if permission in found:
        return None
    return tuple(sorted(each.removeprefix(f"{permission}@") for each in found if each.startswith(f"{permission}@")))


def bound_to(bindings: Iterable[RoleBinding], *, user: str = "", groups: Sequence[str] = (), service_account: str = "") -> Bound:
    """The roles that bindings give to one subject, each once, in their order. Users and groups are named `issuer:name`."""
    found: dict[str, None] = {}
    within: dict[str, dict[str, None]] = {}
    for binding in bindings:
        named = user in binding.users or service_account in binding.service_accounts
        if not named and not any(group in binding.groups for group in groups):
            continue
        if not binding.namespaces:
            found |= dict.fromkeys(binding.roles)
        for namespace in binding.namespaces:
            within.setdefault(namespace, {}).update(dict.fromkeys(binding.roles))
    return Bound(tuple(found), tuple(RolesIn(name, tuple(within[name])) for name in sorted(within)))
