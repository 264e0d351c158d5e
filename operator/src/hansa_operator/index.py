"""All objects that were seen, and what follows from them together: whose a namespace is, who has a name, who needs what. No I/O.

A namespace belongs to the Tenant that its label names, if that still claims it; else to the one that claimed it first. What is needed and
what is brought are words like `alias small` or `server search`, always of one tenant.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from hansa_operator.conditions import ready
from hansa_operator.model import Found, Key

Word = str


class Space(msgspec.Struct, frozen=True):
    """A namespace: whom its label names, whether it is on its way out, and whether the operator has made it."""

    name: str
    uid: str
    version: int
    tenant: str
    deleting: bool


class Index:
    """See the module."""

    def __init__(self) -> None:
        self.objects: dict[Key, Found] = {}
        self.spaces: dict[str, Space] = {}
        self._claims: dict[str, set[str]] = {}
        self._named: dict[tuple[str, str], set[Key]] = {}
        self._within: dict[str, set[Key]] = {}
        self._brings: dict[Key, frozenset[Word]] = {}
        self._bringers: dict[Word, set[Key]] = {}
        self._waiting: dict[tuple[str, Word], set[Key]] = {}

    def get(self, key: Key) -> Found | None:
        """What was last seen of an object."""
        return self.objects.get(key)

    def put(self, found: Found) -> bool:
        """Take in what was seen; whether it is news: an older state of the same object is none."""
        key, known = found.key, self.objects.get(found.key)
        if known is not None and known.uid == found.uid and known.version >= found.version:
            return False
        if known is not None and _shape(known) != _shape(found):
            self._unclaim(known)
        self.objects[key] = found
        if known is None or _shape(known) != _shape(found):
            self._claim(found)
        return True

    def remove(self, key: Key) -> Found | None:
        """Forget an object; what it was."""
        known = self.objects.pop(key, None)
        if known is not None:
            self._unclaim(known)
        return known

    def put_space(self, space: Space) -> bool:
        """Take in a namespace; whether whose it is, or that it is there, has changed."""
        known = self.spaces.get(space.name)
        if known is not None and known.uid == space.uid and known.version >= space.version:
            return False
        self.spaces[space.name] = space
        return known is None or (known.uid, known.tenant, known.deleting) != (space.uid, space.tenant, space.deleting)

    def remove_space(self, name: str) -> None:
        """Forget a namespace."""
        self.spaces.pop(name, None)

    # ------------------------------------------------------------------------------------------------------ whose it is

    def claimants(self, namespace: str) -> list[Key]:
        """The Tenants that claim a namespace; the one that has it first."""
        found = [self.objects[key] for name in self._claims.get(namespace, ()) if (key := Key("Tenant", "", name)) in self.objects]
        space = self.spaces.get(namespace)
        label = space.tenant if space is not None else ""
        return [each.key for each in sorted(found, key=lambda each: (each.key.name != label, each.created, each.uid))]

    def holder(self, namespace: str) -> Found | None:
        """The Tenant whose a namespace is."""
        first = self.claimants(namespace)[:1]
        return self.objects[first[0]] if first else None

    def spaces_of(self, tenant: str) -> list[str]:
        """The namespaces that are a tenant's."""
        found = self.objects.get(Key("Tenant", "", tenant))
        return [name for name in namespaces_of(found) if self.holder(name) is found] if found is not None else []

    def counts(self) -> dict[tuple[str, str], int]:
        """How many objects there are, by kind and by what their Ready says."""
        found: dict[tuple[str, str], int] = {}
        for key, each in self.objects.items():
            said = ready(each.status_value())
            place = (key.kind, said.status if said is not None else "none")
            found[place] = found.get(place, 0) + 1
        return found

    def within(self, namespace: str) -> Iterator[Key]:
        """The objects in a namespace."""
        return iter(tuple(self._within.get(namespace, ())))

    def first(self, key: Key) -> Key:
        """Of all objects of this kind and name in the tenant of its namespace: the one that was there first."""
        mine = self.holder(key.namespace)
        rivals = [self.objects[each] for each in self._named.get((key.kind, key.name), ()) if self._of(each, mine)]
        return min(rivals, key=lambda each: (each.created, each.uid)).key if rivals else key

    def rivals(self, key: Key) -> list[Key]:
        """The other objects of this kind and name, wherever they are."""
        return [each for each in self._named.get((key.kind, key.name), ()) if each != key]

    def _of(self, key: Key, tenant: Found | None) -> bool:
        holder = self.holder(key.namespace)
        return tenant is not None and holder is not None and holder.key == tenant.key

    # ------------------------------------------------------------------------------------------------- who needs what

    def bringing(self, tenant: str, word: Word) -> list[Key]:
        """The objects of a tenant that bring something."""
        bringers = self._bringers.get(word)
        if not bringers:
            return []
        holder = self.objects.get(Key("Tenant", "", tenant))
        spaces = namespaces_of(holder) if holder is not None else (tenant,)
        return [key for key in bringers if key.namespace in spaces]

    def brings(self, key: Key) -> frozenset[Word]:
        """What an object brings."""
        return self._brings.get(key, frozenset())

    def wait(self, key: Key, tenant: str, words: Iterable[Word]) -> None:
        """Remember that an object waits for these."""
        for word in words:
            self._waiting.setdefault((tenant, word), set()).add(key)

    def waiting(self, tenant: str, words: Iterable[Word]) -> set[Key]:
        """Those who waited for one of these; they are remembered no longer."""
        return set[Key]().union(*(self._waiting.pop((tenant, word), set()) for word in words))

    def _claim(self, found: Found) -> None:
        key = found.key
        self._named.setdefault((key.kind, key.name), set()).add(key)
        if key.namespace:
            self._within.setdefault(key.namespace, set()).add(key)
        if key.kind == "Tenant":
            for name in namespaces_of(found):
                self._claims.setdefault(name, set()).add(key.name)
        brought = frozenset(_brought(key, found.spec_value() if key.kind == "ModelProvider" else {}))
        if brought:
            self._brings[key] = brought
            for word in brought:
                self._bringers.setdefault(word, set()).add(key)

    def _unclaim(self, found: Found) -> None:
        key = found.key
        _discard(self._named, (key.kind, key.name), key)
        _discard(self._within, key.namespace, key)
        for word in self._brings.pop(key, ()):
            _discard(self._bringers, word, key)
        if key.kind == "Tenant":
            for name in namespaces_of(found):
                _discard(self._claims, name, key.name)


def namespaces_of(tenant: Found) -> tuple[str, ...]:
    """The namespaces that a Tenant claims: those that it lists, or that of its own name."""
    listed = tenant.spec_value().get("namespaces")
    names: list[Any] = listed if isinstance(listed, list) else []  # pyright: ignore[reportUnknownVariableType]
    return tuple(str(each) for each in names) or (tenant.key.name,)


def needs(kind: str, spec: Mapping[str, Any]) -> frozenset[Word]:
    """What an object's references name, as words. What is written wrongly names nothing."""
    if kind != "Agent":
        return frozenset()
    found: set[Word] = set()
    model: Any = spec.get("model") or {}
    for choice in [model, *(model.get("fallbacks") or ())]:
        found |= {f"{field} {choice[field]}" for field in ("alias", "ref") if choice.get(field)}
    for use in spec.get("tools") or ():
        found |= {f"{word} {use[field]}" for field, word in (("toolServer", "server"), ("agent", "agent")) if use.get(field)}
    return frozenset(found)


def _brought(key: Key, spec: Mapping[str, Any]) -> Iterator[Word]:
    match key.kind:
        case "ToolServer":
            yield f"server {key.name}"
        case "Agent":
            yield f"agent {key.name}"
        case "ModelProvider":
            for model in spec.get("models") or ():
                yield f"ref {key.name}/{model.get('name')}"
                for alias in model.get("aliases") or ():
                    yield f"alias {alias}"
        case _:
            return


def _discard(sets: dict[Any, set[Any]], name: Any, member: Any) -> None:
    found = sets.get(name)
    if found is not None:
        found.discard(member)
        if not found:
            del sets[name]


def _shape(found: Found) -> tuple[str, bytes]:
    """What claims, names and things brought follow from."""
    return found.uid, found.spec
