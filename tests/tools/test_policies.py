"""Rules on arguments: what they let pass, what they refuse, and that what can't be judged is refused."""

import time
from typing import Any

import msgspec
import pytest

from hansa.tools import expressions
from hansa.tools.policies import broken_rule
from hansa_crds import ArgumentRule
from hansa_sdk import ToolCall

PAYMENT: dict[str, Any] = {"amount": 50, "to": "bob@example.com", "items": [{"price": 1.5}]}


def told(rule: ArgumentRule, tool: str = "pay", **arguments: Any) -> str:
    return broken_rule([rule], ToolCall(id="", name=tool, arguments=arguments))


@pytest.mark.parametrize(
    "expression",
    [
        "args.amount <= 100 && args.to.endsWith('@example.com')",
        "!has(args.cc)",
        "args.items.all(item, item.price < 10.0)",
        "tool in ['pay', 'refund']",
        "args.to.matches('^[a-z]+@example[.]com$')",
        "int(args.amount) % 10 == 0",
    ],
)
def test_a_condition_that_holds_lets_a_call_pass(expression: str) -> None:
    assert expressions.flaw(expression) == ""
    assert told(ArgumentRule(cel=expression), **PAYMENT) == ""


@pytest.mark.parametrize(
    ("expression", "arguments"),
    [
        ("args.amount <= 100", {"amount": 101}),
        ("args.amount <= 100", {"amount": "50"}),  # another type
        ("args.amount <= 100", {}),  # a field that is not there
        ("args.amount <= 100", {"amount": 2**80}),
        ("args.amount <= 100", {"amount": None}),
        ("args.to == 'bob'", {"to": ["bob"]}),
        ("args.amount", {"amount": 1}),  # gives no truth
        ("1 / args.amount > 0", {"amount": 0}),
        ("tool == 'refund'", {}),
    ],
)
def test_what_does_not_hold_or_cannot_be_judged_refuses(expression: str, arguments: dict[str, Any]) -> None:
    wrong = told(ArgumentRule(cel=expression), **arguments)
    assert repr(expression) in wrong
    assert told(ArgumentRule(cel=expression, message="At most 100."), **arguments) == "At most 100."


@pytest.mark.parametrize(
    "expression", ["args.amount <", "amount < 3", "args.amount + 1 == 'x' +", "nothing()", "'text'", "1 + 1", "(" * 500]
)
def test_a_condition_that_cannot_be_understood_is_said_so_before_it_is_used(expression: str) -> None:
    assert expressions.flaw(expression) != ""
    assert told(ArgumentRule(cel=expression), **PAYMENT) != ""


def test_a_condition_takes_bounded_time_whatever_the_arguments() -> None:
    begun = time.process_time()
    rule = ArgumentRule(cel="args.list.all(a, args.list.all(b, args.list.all(c, a + b + c >= 0)))")
    assert "can't be judged" in told(rule, list=list(range(1000)))
    assert told(ArgumentRule(cel="args.text.matches('(a+)+$')"), text="a" * 5000 + "!") != ""
    assert time.process_time() - begun < 2


def test_a_schema_narrows_arguments() -> None:
    schema = {"type": "object", "properties": {"amount": {"type": "integer", "maximum": 100}}, "required": ["amount"]}
    rule = ArgumentRule(schema=schema)
    assert told(rule, amount=100) == ""
    assert "100" in told(rule, amount=101)
    assert told(rule) != ""
    assert told(msgspec.structs.replace(rule, message="No."), amount=101) == "No."


def test_a_rule_holds_for_the_tools_it_names_and_without_names_for_all() -> None:
    never = ArgumentRule(cel="false")
    assert told(never) != ""
    named = msgspec.structs.replace(never, tools=("pay",))
    assert told(named) != ""
    assert told(named, tool="look") == ""
