"""The rules in the Common Expression Language, as Kubernetes' API server judges them, each with a message that says what to do.

Knows the rules and the names of CEL, no types and no files. Where Kubernetes has a form of its own for a rule (a list that is a set,
or a map by one field) `definitions.py` uses that; what can't be said at all (names across several lists) the control plane still checks and
answers.
"""

from collections.abc import Iterator

from msgspec import Struct

from hansa_crds.rules import DistinctItems, DistinctNames, ExactlyOne, Immutable, NotWith, Once, OnlyWith, OwnNamespaces, Rule


class Expression(Struct, frozen=True):
    """A rule of Kubernetes: about the object, or about its field `on`. `reason` is the API server's word for what is wrong (not
    `FieldValueDuplicate`: with that it says nothing of the message); `at` is the field that is named, below where it stands."""

    rule: str
    message: str
    reason: str = "FieldValueInvalid"
    on: str = ""
    at: str = ""


def expressions(rule: Rule) -> Iterator[Expression]:
    """Give what a rule is in CEL, if it can be said."""
    match rule:
        case ExactlyOne():
            count = " + ".join(f"(has(self.{each}) ? 1 : 0)" for each in rule.fields)
            yield Expression(f"{count} == 1", _told(f"exactly one of {', '.join(rule.fields)} must be set", rule.hint))
        case OnlyWith():
            given = f"has(self.{rule.field}) && self.{rule.field}.size() > 0"
            message = _told(f"{rule.field} may be set only where {rule.other} is", rule.hint)
            yield Expression(f"!({given}) || has(self.{rule.other})", message, "FieldValueForbidden", at=f".{rule.field}")
        case NotWith():
            message = _told(f"{rule.field} may not be set where {rule.other} is", rule.hint)
            yield Expression(f"!(has(self.{rule.field}) && has(self.{rule.other}))", message, "FieldValueForbidden", at=f".{rule.field}")
        case DistinctItems(named=False, keys=keys) if keys:
            alike = " && ".join(f"{_text('a', each)} == {_text('b', each)}" for each in keys)
            message = _told(f"no two entries with the same {', '.join(keys)}", rule.hint)
            yield Expression(f"self.all(a, self.exists_one(b, {alike}))", message, on=rule.field)
        case DistinctNames():
            message = _told(f"a {rule.name} may not stand in {rule.more}", f"give each its own {rule.name} and {rule.more}")
            test = f"self.all(a, !has(a.{rule.more}) || self.all(b, !(b.{rule.name} in a.{rule.more})))"
            yield Expression(test, message, on=rule.field)
        case Once(text=text):
            test = f"self.contains('{text}') && self.indexOf('{text}') == self.lastIndexOf('{text}')"
            message = _told(f"must contain {text} exactly once", f"write {text} where the text of the user belongs")
            yield Expression(test, message, on=rule.field)
        case Immutable():
            message = _told(f"{rule.field} can't be changed", rule.hint)
            yield Expression("self == oldSelf", message, "FieldValueForbidden", on=rule.field)
        case OwnNamespaces():
            own = "n == self.metadata.name || (has(self.spec.namespaces) && n in self.spec.namespaces)"
            bindings = "self.spec.identity.roleBindings"
            test = f"!has({bindings}) || {bindings}.all(b, !has(b.namespaces) || b.namespaces.all(n, {own}))"
            message = _told("a role may be bound only in namespaces of this tenant", rule.hint)
            yield Expression(f"!has(self.spec.identity) || {test}", message, at=".spec.identity.roleBindings")
        case _:
            return


def _text(item: str, field: str) -> str:
    return f"(has({item}.{field}) ? {item}.{field} : '')"


def _told(what: str, hint: str) -> str:
    return f"{what}: {hint.replace('`', '')}"
