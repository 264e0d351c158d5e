"""What an agent's rules say of a call: pure, and the same whenever it is asked.

A rule that can't be judged refuses.
"""

from collections.abc import Sequence

from hansa.tools import expressions
from hansa.tools.schemas import wrong_arguments
from hansa_crds import ArgumentRule
from hansa_sdk import ToolCall


def broken_rule(rules: Sequence[ArgumentRule], call: ToolCall) -> str:
    """What the model is told of the first rule that a call breaks; empty: it breaks none."""
    for rule in rules:
        if rule.tools and call.name not in rule.tools:
            continue
        wrong = _wrong(rule, call)
        if wrong:
            return rule.message or wrong
    return ""


def _wrong(rule: ArgumentRule, call: ToolCall) -> str:
    if rule.schema is not None:
        return wrong_arguments(rule.schema, call.arguments)
    holds, trouble = expressions.holds(rule.cel or "false", args=call.arguments, tool=call.name)
    if trouble:
        return f"the condition {rule.cel!r} can't be judged: {trouble}"
    return "" if holds else f"the condition {rule.cel!r} does not hold"
