"""Rules that span fields of one object, declared once for validation and for the generated Kubernetes definitions.

A rule looks at plain data, not at Structs, so that it can speak even where other fields are wrong. What it cannot judge
(a value of the wrong type) it leaves to the type's own check.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, cast

from msgspec import Struct

from hansa_crds.identity import Issuer, RoleBinding, TenantIdentity
from hansa_crds.model import (
    AgentSpec,
    AgentTools,
    Credentials,
    ModelChoice,
    ModelProviderSpec,
    Region,
    Tenant,
    ToolServerSpec,
)
from hansa_crds.policies import ArgumentRule
from hansa_crds.problem import Keys, Problem, listed, meant, path_of, problem, shown
from hansa_crds.rollout import AgentSmoke
from hansa_crds.status import Status
from hansa_crds.tenant import TenantSpec

SCHEMA_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


class ExactlyOne(Struct, frozen=True):
    """Exactly one of the fields is present. `hint` says how to choose."""

    fields: tuple[str, ...]
    hint: str


class DistinctItems(Struct, frozen=True):
    """No two items of the list `field` are alike: by the values of all `keys`, or by themselves when there are none.

    `named`: the one key is the item's name, by which it is the same item in another version of the object.
    """

    field: str
    keys: tuple[str, ...] = ()
    hint: str = "remove one of them"
    named: bool = False


class DistinctNames(Struct, frozen=True):
    """Over all items of the list `field`, no `name` and no entry of the list `more` occurs twice."""

    field: str
    name: str
    more: str


class Once(Struct, frozen=True):
    """The text `field` contains `text` exactly once."""

    field: str
    text: str


class SchemaObject(Struct, frozen=True):
    """The object `field` is a JSON Schema that says its `type`."""

    field: str


class NoNamespace(Struct, frozen=True):
    """`metadata.namespace` is left out: the kind lives in no namespace."""

    kind: str


class OwnNamespaces(Struct, frozen=True):
    """Each of `spec.identity.roleBindings[].namespaces` is the object's own name or one of `spec.namespaces`."""

    hint: str


class OnlyWith(Struct, frozen=True):
    """The field is present only where `other` is. `hint` says what to do."""

    field: str
    other: str
    hint: str = "remove one of them"


class NotWith(Struct, frozen=True):
    """The field is present only where `other` is not. `hint` says what to do."""

    field: str
    other: str
    hint: str


class Immutable(Struct, frozen=True):
    """The field stays as it is for as long as the object, or the named item that it stands in, is there. `hint` says what to do."""

    field: str
    hint: str


Rule = ExactlyOne | OnlyWith | NotWith | DistinctItems | DistinctNames | Once | SchemaObject | NoNamespace | OwnNamespaces | Immutable

RULES: Mapping[type[Struct], tuple[Rule, ...]] = MappingProxyType(
    {
        ModelChoice: (ExactlyOne(("alias", "ref"), "name the model by `alias` or as `ref: provider/model`"),),
        Credentials: (
            ExactlyOne(("env", "secret"), "name an environment variable by `env` or a secret of the tenant by `secret`"),
            OnlyWith("key", "secret", "name the secret by `secret`, or leave `key` out"),
        ),
        AgentTools: (
            ExactlyOne(("plugin", "toolServer", "agent"), "write one entry for each plugin, ToolServer and agent"),
            DistinctItems("allow"),
            DistinctItems("requireApproval"),
            OnlyWith("secrets", "plugin", "only tools of plugins take secrets; a ToolServer has its `credentials`"),
            NotWith("cage", "toolServer", "leave `cage` out: only a plugin's tools run programs in a cage here"),
            NotWith("cage", "agent", "leave `cage` out: only a plugin's tools run programs in a cage here"),
            NotWith("effect", "agent", "leave `effect` out: the tools of the agent that is called have theirs"),
        ),
        ArgumentRule: (
            ExactlyOne(("schema", "cel"), "write one rule for each"),
            SchemaObject("schema"),
        ),
        AgentSpec: (
            Once("inputTemplate", "{input}"),
            SchemaObject("outputSchema"),
            DistinctItems("tools", ("plugin", "toolServer", "agent"), "put all names in the `allow` of one entry"),
        ),
        Status: (DistinctItems("conditions", ("type",), named=True),),
        ModelProviderSpec: (DistinctNames("models", "name", "aliases"),),
        ToolServerSpec: (DistinctItems("allow"),),
        TenantIdentity: (
            DistinctItems("issuers", ("name",), "give each issuer a name of its own", named=True),
            DistinctItems("issuers", ("issuer", "audience"), "keep one of them"),
        ),
        Issuer: (Immutable("issuer", "give another issuer another name, and bind roles to that: who has this one's roles is named by it"),),
        AgentSmoke: (DistinctItems("allow"),),
        TenantSpec: (DistinctItems("namespaces"),),
        RoleBinding: tuple(DistinctItems(each) for each in ("roles", "namespaces", "users", "groups", "serviceAccounts", "agents")),
        Tenant: (NoNamespace("Tenant"), OwnNamespaces("name it in `spec.namespaces` too, or leave it out here")),
        Region: (NoNamespace("Region"),),
    }
)
"""Rules by the Struct they hold for; they hold for its subclasses too."""


def rules_of(type_: type) -> tuple[Rule, ...]:
    """Give all rules of a type, its own and inherited."""
    return tuple(rule for each in type_.__mro__ for rule in RULES.get(each, ()))


def broken(rule: Rule, data: Mapping[str, Any], keys: Keys) -> Iterator[Problem]:
    """Give the problems that a rule has with the object `data` found at `keys`."""
    match rule:
        case ExactlyOne():
            yield from _exactly_one(rule, data, keys)
        case OnlyWith():
            if data.get(rule.field) and data.get(rule.other) is None:
                yield problem((*keys, rule.field), "one_of", f"may be set only where `{rule.other}` is", rule.hint)
        case NotWith():
            if data.get(rule.field) is not None and data.get(rule.other) is not None:
                yield problem((*keys, rule.field), "one_of", f"may not be set where `{rule.other}` is", rule.hint)
        case DistinctItems():
            yield from _distinct_items(rule, data, keys)
        case DistinctNames():
            yield from _distinct_names(rule, data, keys)
        case Once():
            yield from _once(rule, data, keys)
        case SchemaObject():
            yield from _schema_object(rule, data, keys)
        case NoNamespace():
            meta = data.get("metadata")
            if isinstance(meta, dict) and cast("dict[str, Any]", meta).get("namespace") is not None:
                where = (*keys, "metadata", "namespace")
                yield problem(where, "unknown_field", f"a {rule.kind} lives in no namespace", "remove the field")
        case OwnNamespaces():
            yield from _own_namespaces(rule, data, keys)
        case Immutable():
            pass  # `changes.py` judges it: that takes two versions of the object


def _own_namespaces(rule: OwnNamespaces, data: Mapping[str, Any], keys: Keys) -> Iterator[Problem]:
    spec = _fields(data.get("spec"))
    own = [_fields(data.get("metadata")).get("name"), *_items(spec.get("namespaces"))]
    for number, binding in enumerate(_items(_fields(spec.get("identity")).get("roleBindings"))):
        for at, name in enumerate(_items(_fields(binding).get("namespaces"))):
            if isinstance(name, str) and name not in own:
                where = (*keys, "spec", "identity", "roleBindings", number, "namespaces", at)
                yield problem(where, "one_of", f"`{shown(name)}` is no namespace of this tenant", rule.hint)


def _exactly_one(rule: ExactlyOne, data: Mapping[str, Any], keys: Keys) -> Iterator[Problem]:
    present = [each for each in rule.fields if data.get(each) is not None]
    if len(present) != 1:
        got = f"got {listed(present)}" if present else "got none of them"
        yield problem(keys, "one_of", f"exactly one of {listed(rule.fields)} must be set, {got}", rule.hint)


def _distinct_items(rule: DistinctItems, data: Mapping[str, Any], keys: Keys) -> Iterator[Problem]:
    seen: dict[tuple[str | None, ...], int] = {}
    for position, item in enumerate(_items(data.get(rule.field))):
        fields = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
        parts: list[Any] = [fields.get(each) for each in rule.keys] if rule.keys else [item]
        names = [each for each in parts if isinstance(each, str)]
        if not names or any(not isinstance(each, str | None) for each in parts):
            continue
        first = seen.setdefault(tuple(parts), position)
        if first != position:
            message = f"`{shown(names[0])}` is already entry {first} of `{rule.field}`"
            yield problem((*keys, rule.field, position), "duplicate", message, rule.hint)


def _distinct_names(rule: DistinctNames, data: Mapping[str, Any], keys: Keys) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for position, item in enumerate(_items(data.get(rule.field))):
        if not isinstance(item, dict):
            continue
        fields = cast("dict[str, Any]", item)
        where: Keys = (*keys, rule.field, position)
        names: list[tuple[Keys, Any]] = [((*where, rule.name), fields.get(rule.name))]
        names += [((*where, rule.more, at), each) for at, each in enumerate(_items(fields.get(rule.more)))]
        for place, name in names:
            if not isinstance(name, str):
                continue
            if name in seen:
                message = f"`{shown(name)}` already stands at `{seen[name]}`"
                yield problem(place, "duplicate", message, "give each model its own name and aliases")
            else:
                seen[name] = path_of(place)


def _once(rule: Once, data: Mapping[str, Any], keys: Keys) -> Iterator[Problem]:
    text = data.get(rule.field)
    if isinstance(text, str) and (count := text.count(rule.text)) != 1:
        got = "not at all" if count == 0 else f"{count} times"
        message = f"must contain `{rule.text}` exactly once, has it {got}"
        yield problem((*keys, rule.field), "pattern", message, f"write `{rule.text}` where the text of the user belongs")


def _schema_object(rule: SchemaObject, data: Mapping[str, Any], keys: Keys) -> Iterator[Problem]:
    schema = data.get(rule.field)
    if not isinstance(schema, dict):
        return
    found = cast("dict[str, Any]", schema).get("type")
    where = (*keys, rule.field, "type")
    if found is None:
        yield problem(where, "required", "a JSON Schema here must say its `type`", "write `type: object` and its `properties`")
        return
    for name in _items(found) or [found]:
        if name not in SCHEMA_TYPES:
            word = shown(name) if isinstance(name, str) else ""
            suggestion = meant(word, SCHEMA_TYPES, otherwise="known types")
            yield problem(where, "one_of", f"must be a type of JSON Schema, got {f'`{word}`' if word else 'none'}", suggestion)


def _fields(data: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", data) if isinstance(data, dict) else {}


def _items(data: Any) -> list[Any]:
    return list(cast("list[Any]", data)) if isinstance(data, list | tuple) else []
