"""The objects of a request as they came: which of them can be understood, whose each would be, and in which order they are taken.

Pure. Must not know the database.
"""

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from hansa.apply.model import CLUSTER, ORDER, Applied, Item
from hansa.apply.sight import WRITING, outside
from hansa.auth.model import Principal
from hansa.errors import FieldError
from hansa.tenants.service import DEFAULT_TENANT
from hansa_crds import HansaObject, Keys, check, kind_of
from hansa_crds.problem import path_of


class Candidate(msgspec.Struct, frozen=True):
    """An object that is right in itself: where it stands in the request, whose it would be, and the namespace that it would stand in."""

    number: int
    item: Item
    found: HansaObject
    tenant: str

    @property
    def kind(self) -> str:
        return kind_of(self.found).kind

    @property
    def name(self) -> str:
        return self.found.metadata.name

    @property
    def namespace(self) -> str:
        return self.found.metadata.namespace or self.tenant


def candidates(principal: Principal, items: list[Item], namespaces: Mapping[str, str]) -> tuple[list[Candidate], dict[int, Applied]]:
    """The objects that are right in themselves, and what became of the others, by their places in the request.

    In the order of their kinds, tenants and names: what others refer to comes first, and two requests that write the same objects lock
    them in the same order, so that neither waits for the other.
    """
    good: list[Candidate] = []
    failed: dict[int, Applied] = {}
    seen: dict[tuple[str, str, str], int] = {}
    for number, item in enumerate(items):
        found, problems = check(item.manifest)
        errors = tuple(FieldError(each.path, each.code, each.message, each.suggestion or None) for each in problems)
        if found is not None:
            errors = _unkeepable(item.manifest, ())
        if found is None or errors:
            failed[number] = refused(item, errors)
            continue
        candidate = Candidate(number, item, found, tenant_of(principal, found, namespaces))
        first = seen.setdefault((candidate.tenant, candidate.kind, candidate.name), number)
        if first != number:
            failed[number] = refused(item, (_duplicate(items[first]),))
            continue
        good.append(candidate)
    return sorted(good, key=lambda each: (ORDER.index(each.kind), each.tenant, each.name)), failed


def tenant_of(principal: Principal, found: HansaObject, namespaces: Mapping[str, str]) -> str:
    """Whose an object is: a Tenant is its own, a Region the installation's, anything else is of the tenant that its namespace leads to, or
    the caller's."""
    return tenant_of_name(principal, kind_of(found).kind, found.metadata.name, namespaces, namespace=found.metadata.namespace)


def tenant_of_name(principal: Principal, kind: str, name: str, namespaces: Mapping[str, str], *, namespace: str | None) -> str:
    """The same of an object by its name. A namespace that nobody claims is the tenant of that name."""
    if kind in CLUSTER:
        return name if kind == "Tenant" else DEFAULT_TENANT
    return principal.tenant if namespace is None else namespaces.get(namespace, namespace)


def forbidden(principal: Principal, candidate: Candidate) -> FieldError | None:
    """Why this caller can't apply such an object, whatever it says."""
    if candidate.kind in CLUSTER:
        if principal.may("platform:write"):
            return None
        return FieldError("kind", "forbidden", f"a {candidate.kind} needs the permission platform:write (role platform-admin)")
    if candidate.tenant != principal.tenant and not principal.may("tenants:act"):
        text = f"this key belongs to tenant {principal.tenant!r}; leave namespace out or write that"
        # Who is bound in namespaces is told no more of it than of one that is not there. A binding in it opens nothing: it leads elsewhere.
        said = outside(principal, WRITING, candidate.namespace, path="metadata.namespace")
        return said or FieldError("metadata.namespace", "reference", text)
    if candidate.tenant != principal.tenant:  # nobody acts elsewhere with roles of a namespace
        return None if principal.may(WRITING) else FieldError("kind", "forbidden", f"this needs the permission {WRITING} in every tenant")
    return outside(principal, WRITING, candidate.namespace, path="metadata.namespace")


def refused(item: Item, errors: tuple[FieldError, ...]) -> Applied:
    """What is answered for an object that can't be applied."""
    try:
        head = msgspec.convert(item.manifest, _Head)
    except msgspec.ValidationError:
        head = _Head()
    source = item.source
    if source is not None:
        errors = tuple(msgspec.structs.replace(e, file=source.file, line=source.line, column=source.column) for e in errors)
    return Applied(head.kind, head.metadata.name, "failed", errors=errors)


class _Name(msgspec.Struct):
    name: str = ""


class _Head(msgspec.Struct):
    """As much of a manifest as is needed to name it in an answer."""

    kind: str = ""
    metadata: _Name = msgspec.field(default_factory=_Name)


def _duplicate(first: Item) -> FieldError:
    where = f"{first.source.file}:{first.source.line}" if first.source else "earlier in this request"
    return FieldError("metadata.name", "duplicate", f"an object of this kind and name stands already at {where}")


def _unkeepable(value: Any, keys: Keys) -> tuple[FieldError, ...]:
    """Texts that the database can keep and then not look into: those with a NUL character."""
    match value:
        case str():
            wrong = "\x00" in value
            return (FieldError(path_of(keys), "pattern", "holds a NUL character, which no manifest may"),) if wrong else ()
        case list():
            items = cast(list[Any], value)
            return tuple(error for number, item in enumerate(items) for error in _unkeepable(item, (*keys, number)))
        case dict():
            fields = cast(dict[str, Any], value)
            inside = [error for key, item in fields.items() for error in _unkeepable(item, (*keys, key))]
            return (*(error for key in fields for error in _unkeepable(key, (*keys, key))), *inside)
        case _:
            return ()
