"""The reference page of a kind, in Markdown: example, fields with type, default and bounds, rules, status, conditions, kubectl.

Knows the types and their descriptions; what a person writes about a kind stands in `examples.py`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import NODEFAULT, Struct, inspect

from hansa_crds.conditions import CONDITIONS, REPORTED, types_of
from hansa_crds.examples import PAGES
from hansa_crds.inspection import bare, described, values_of
from hansa_crds.kinds import Kind
from hansa_crds.parts import PATTERN_WORDS
from hansa_crds.problem import listed
from hansa_crds.rules import (
    DistinctItems,
    DistinctNames,
    ExactlyOne,
    Immutable,
    NoNamespace,
    NotWith,
    Once,
    OnlyWith,
    OwnNamespaces,
    Rule,
    SchemaObject,
    rules_of,
)

Row = tuple[str, str, str, str, str]


def page(kind: Kind) -> str:
    """Give the reference page of a kind."""
    info = inspect.type_info(kind.type)
    written = PAGES[kind.kind]
    scope = "the whole platform" if kind.scope == "Cluster" else "a namespace"
    names = f"`{kind.kind}`, plural `{kind.plural}`, short {listed(kind.short_names)}; belongs to {scope}."
    rules = "".join(f"- {line}\n" for line in _rules(info, ""))
    return f"""\
# {kind.kind}

Generated from `hansa_crds` by `make generate`; not edited by hand.

{(kind.type.__doc__ or "").strip()} {names}

## What it does

{written.text}

## Example

```yaml
{written.example}```

## Fields

{_table(("field", "type", "default", "bounds", "meaning"), _rows(info, ""))}
{f"{chr(10)}## Rules{chr(10)}{chr(10)}{rules}" if rules else ""}
## Status

What the operator reports of it in Kubernetes, where nobody else writes it.

{_table(("field", "type", "meaning"), ((row[0], row[1], row[4]) for row in _rows(inspect.type_info(kind.status), "status")))}

## Conditions

{_table(("type", "meaning"), ((f"`{type_}`", text) for type_, text in types_of(kind.kind).items()))}
{"".join(_reasons(kind))}
## With kubectl

`kubectl get {kind.plural}` shows {_columns(kind, wide=False)}{_wide(kind)}.
`kubectl get hansa` shows objects of all kinds, `kubectl explain {kind.singular}.spec` the fields. `--field-selector` selects by
{listed(each.removeprefix(".") for each in kind.selectable)}.
"""


def _reasons(kind: Kind) -> Iterator[str]:
    for type_, reasons in CONDITIONS.get(kind.kind, {}).items():
        rows = [(f"`{reason}`", text) for reason, text in reasons.items() if reason]
        if rows:
            yield f"\n### {type_}\n\n{_table(('reason', 'meaning'), rows)}\n"
    if REPORTED:
        rows = [(f"`{reason}`", text) for reason, text in REPORTED.items()]
        yield f"\n### Ready, Reconciling, Stalled, as the operator reports them\n\n{_table(('reason', 'meaning'), rows)}\n"


def _columns(kind: Kind, *, wide: bool) -> str:
    return ", ".join(each.name.upper() for each in kind.columns if each.wide == wide)


def _wide(kind: Kind) -> str:
    more = _columns(kind, wide=True)
    return f"; `-o wide` also {more}" if more else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(each) for each in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rows(info: inspect.Type, path: str) -> Iterator[Row]:
    found = bare(info)
    if not isinstance(found, inspect.StructType):
        return
    if found.tag_field is not None:
        yield (f"`{found.tag_field}`", "string", "**required**", f"`{found.tag}`", "Kind of the object.")
    for field in found.fields:
        place = f"{path}.{field.encode_name}" if path else field.encode_name
        yield (f"`{place}`", _type(field.type), _default(field), _bounds(field.type), described(field.type))
        yield from _rows(_inner(field.type), place + ("[]" if _is_list(field.type) else ""))


def _rules(info: inspect.Type, path: str) -> Iterator[str]:
    found = bare(info)
    if not isinstance(found, inspect.StructType):
        return
    for rule in rules_of(found.cls):
        yield _words(rule, f"`{path}`" if path else "the object", f"{path}." if path else "")
    for field in found.fields:
        place = f"{path}.{field.encode_name}" if path else field.encode_name
        yield from _rules(_inner(field.type), place + ("[]" if _is_list(field.type) else ""))


def _words(rule: Rule, owner: str, path: str) -> str:
    match rule:
        case ExactlyOne():
            return f"In {owner}, exactly one of {listed(rule.fields)} is set: {rule.hint}."
        case DistinctItems(keys=()):
            return f"No entry of `{path}{rule.field}` stands there twice."
        case NotWith():
            return f"`{path}{rule.field}` is set only where `{path}{rule.other}` is not: {rule.hint}."
        case Immutable():
            return f"`{path}{rule.field}` stays as it is: {rule.hint}."
        case DistinctItems():
            keys = " and the same ".join(f"`{each}`" for each in rule.keys)
            return f"No two entries of `{path}{rule.field}` have the same {keys}: {rule.hint}."
        case DistinctNames():
            return f"Over all of `{path}{rule.field}`, no `{rule.name}` and no entry of `{rule.more}` stands twice."
        case OnlyWith():
            return f"`{path}{rule.field}` is set only where `{path}{rule.other}` is."
        case Once():
            return f"`{path}{rule.field}` contains `{rule.text}` exactly once."
        case SchemaObject():
            return f"`{path}{rule.field}` is a JSON Schema that says its `type`."
        case NoNamespace():
            return "`metadata.namespace` is left out."
        case OwnNamespaces():
            return "Each entry of `spec.identity.roleBindings[].namespaces` is the tenant's own name or stands in `spec.namespaces`."


def _only(info: inspect.Type) -> inspect.Type:
    """Take notes and the possibility of null off a type."""
    found = bare(info)
    if isinstance(found, inspect.UnionType):
        return next(each for each in map(bare, found.types) if not isinstance(each, inspect.NoneType))
    return found


def _is_list(info: inspect.Type) -> bool:
    return isinstance(_only(info), inspect.VarTupleType)


def _inner(info: inspect.Type) -> inspect.Type:
    found = _only(info)
    return found.item_type if isinstance(found, inspect.VarTupleType) else found


def _type(info: inspect.Type) -> str:
    found = _only(info)
    match found:
        case inspect.StrType() | inspect.LiteralType():
            return "string"
        case inspect.IntType():
            return "integer"
        case inspect.FloatType():
            return "number"
        case inspect.BoolType():
            return "boolean"
        case inspect.VarTupleType():
            return f"list of {_type(found.item_type)}s"
        case inspect.DictType():
            value = _type(found.value_type)
            return "object" if value == "any JSON" else f"object of {value}s"
        case inspect.StructType():
            return "object"
        case _:
            return "any JSON"


def _default(field: inspect.Field) -> str:
    if field.required:
        return "**required**"
    if field.default is NODEFAULT or isinstance(field.default, Struct):
        return ""
    shown: Any = field.default
    if isinstance(shown, bool):
        return f"`{str(shown).lower()}`"
    return f"`{shown}`" if isinstance(shown, int | float) or (isinstance(shown, str) and shown) else ""


def _bounds(info: inspect.Type) -> str:
    found = _only(info)
    match found:
        case inspect.StrType():
            least = f"{found.min_length} to " if found.min_length else "at most "
            length = f"{least}{found.max_length} characters" if found.max_length is not None else ""
            return "; ".join(filter(None, (length, PATTERN_WORDS.get(found.pattern or "", ""))))
        case inspect.IntType() | inspect.FloatType():
            return f"{found.ge} to {found.le}"
        case inspect.LiteralType():
            return listed(values_of(found))
        case inspect.VarTupleType():
            inner = _bounds(found.item_type)
            least = f"{found.min_length} to " if found.min_length else "at most "
            return "; ".join(filter(None, (f"{least}{found.max_length} entries", inner and f"each: {inner}")))
        case inspect.DictType():
            key, value = _bounds(found.key_type), _bounds(found.value_type)
            count = f"at most {found.max_length} entries" if found.max_length is not None else ""
            return "; ".join(filter(None, (count, key and f"names: {key}", value and f"values: {value}")))
        case _:
            return ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
