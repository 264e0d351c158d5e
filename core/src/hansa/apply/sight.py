"""What somebody may see and do whose roles hold in some namespaces only: to such a one, what stands in others is not there. Pure.

An object stands in the namespace that its manifest says, or in that of its tenant's own name.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import msgspec

from hansa.apply.model import CLUSTER, Kept
from hansa.auth.model import Principal
from hansa.errors import FieldError, Forbidden, NotFound
from hansa_crds.model import ObjectMeta

READING, WRITING, TAKING = "objects:read", "objects:write", "objects:takeover"


class Standing(Protocol):
    """What stands in a namespace."""

    @property
    def metadata(self) -> ObjectMeta: ...


T = TypeVar("T", bound=Standing)


class _Meta(msgspec.Struct):
    namespace: str | None = None


class _Manifest(msgspec.Struct):
    metadata: _Meta


class _Shown(msgspec.Struct):
    manifest: _Manifest


def sees(principal: Principal, permission: str, body: str) -> bool:
    """Whether the caller has a permission for an object of its tenant, of a kind that stands in namespaces; JSON text with `manifest`."""
    if principal.reach(permission) is None:
        return True
    return principal.may_in(permission, msgspec.json.decode(body, type=_Shown).manifest.metadata.namespace or principal.tenant)


def seen_in(principal: Principal) -> frozenset[str] | None:
    """The namespaces in which what stands is there for the caller: it may read it, or write over it; None: in all."""
    reading, writing = principal.reach(READING), principal.reach(WRITING)
    return None if reading is None or writing is None else reading | writing


def visible(principal: Principal, found: Sequence[T]) -> list[T]:
    """Those of the objects of the caller's tenant that are there for it."""
    reach = seen_in(principal)
    return [each for each in found if reach is None or (each.metadata.namespace or principal.tenant) in reach]


def is_seen(principal: Principal, kind: str, known: Kept) -> bool:
    """Whether an object of the caller's tenant, as it is kept, is there for it."""
    reach = seen_in(principal)
    return reach is None or (kind not in CLUSTER and (known.namespace or principal.tenant) in reach)


def judge(principal: Principal, permission: str, kind: str, known: Kept | None, *, unseen: NotFound) -> Kept:
    """The object, as one that the caller has a permission for. Raises `unseen`, or `Forbidden` when it may only see it."""
    if known is None:
        raise unseen
    if principal.may(permission):
        return known
    namespace = known.namespace or principal.tenant
    if kind in CLUSTER or not (principal.may_in(permission, namespace) or principal.may_in(READING, namespace)):
        raise unseen
    if not principal.may_in(permission, namespace):
        raise Forbidden(needs(principal, permission, namespace))
    return known


def outside(principal: Principal, permission: str, namespace: str, *, path: str) -> FieldError | None:
    """Why a caller may not do it in a namespace of its tenant, whatever stands there."""
    if principal.may_in(permission, namespace):
        return None
    return FieldError(path, "forbidden", needs(principal, permission, namespace))


def untouchable(principal: Principal, kind: str, known: Kept, *, force: bool) -> FieldError | None:
    """Why a caller may not write over an object, whoever owns it. `force`: it takes over what others own. Of one that it may not see it is
    told no more than that the name is not free: a name is used once in a tenant."""
    permission = TAKING if force else WRITING
    if kind in CLUSTER or principal.may(permission) or principal.may_in(permission, known.namespace or principal.tenant):
        return None
    if is_seen(principal, kind, known):
        return FieldError("metadata.namespace", "forbidden", needs(principal, permission, known.namespace or principal.tenant))
    text = f"the name {known.name!r} is not free: a name is used once for a {kind} in a tenant, whatever its namespaces; choose another one"
    return FieldError("metadata.name", "conflict", text)


def needs(principal: Principal, permission: str, namespace: str) -> str:
    """What is said of a permission that is missing in a namespace."""
    having = ", ".join(sorted(principal.reach(permission) or ())) or "no namespace"
    return f"the namespace {namespace!r} needs the permission {permission} there, which you have in {having}"
