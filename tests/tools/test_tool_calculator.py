"""The calculator agrees with Python where it computes, and refuses everything else quickly."""

import math
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa_sdk import ToolFailed
from hansa_tools.calculator import MAX_BITS, calculator, compute
from tools.conftest import Context

# An expression, what it is worth, and what Python's own operators made of it: built together, so that no parser is shared.
Known = tuple[str, int | float]


def _joined(pair: tuple[Known, Known], sign: str) -> Known:
    (left_text, left), (right_text, right) = pair
    operations = {
        "+": lambda: left + right,
        "-": lambda: left - right,
        "*": lambda: left * right,
        "/": lambda: left / right,
        "//": lambda: left // right,
        "%": lambda: left % right,
    }
    try:
        value = operations[sign]()
    except (ZeroDivisionError, OverflowError):
        return left_text, left
    if isinstance(value, float) and not math.isfinite(value):
        return left_text, left
    return f"({left_text}) {sign} ({right_text})", value


def _negated(known: Known) -> Known:
    return f"-({known[0]})", -known[1]


_NUMBERS = st.one_of(st.integers(0, 10**6), st.floats(0, 1e6, allow_nan=False)).map(lambda number: (repr(number), number))
_EXPRESSIONS = st.recursive(
    _NUMBERS,
    lambda smaller: st.one_of(
        st.builds(_joined, st.tuples(smaller, smaller), st.sampled_from(["+", "-", "*", "/", "//", "%"])), smaller.map(_negated)
    ),
    max_leaves=8,
).filter(lambda known: len(known[0]) <= 500)


@given(known=_EXPRESSIONS)
def test_it_computes_what_python_computes(known: Known) -> None:
    text, value = known
    result = compute(text)
    assert (type(result), result) == (type(value), value)


@given(base=st.integers(-50, 50), exponent=st.integers(0, 60))
def test_powers_are_exact(base: int, exponent: int) -> None:
    assert compute(f"({base}) ** {exponent}") == math.prod([base] * exponent)


@given(left=st.integers(-(10**30), 10**30), right=st.integers(1, 10**30))
def test_floor_and_remainder_make_the_whole(left: int, right: int) -> None:
    assert compute(f"({left}) // ({right})") == math.floor(Fraction(left, right))
    assert compute(f"(({left}) // ({right})) * ({right}) + ({left}) % ({right})") == left


_SPELLING = st.text(alphabet="0123456789.eEjx_+-*/%()[]{}, <>=!&|^~@:;'\"\\\n\tabsqrtminmaxroundpi", max_size=80)


@given(text=st.one_of(st.text(max_size=600), _SPELLING))
def test_any_text_is_computed_or_refused(text: str) -> None:
    try:
        result = compute(text)
    except ToolFailed:
        return
    assert math.isfinite(result) if isinstance(result, float) else result.bit_length() <= MAX_BITS


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("2 + 3 * 4", "14"),
        (" (2 + 3) * 4 ", "20"),
        ("2 ** 10", "1024"),
        ("2 ** -1", "0.5"),
        ("-2 ** 2", "-4"),
        ("7 / 2", "3.5"),
        ("1_000 % 7", "6"),
        ("sqrt(2) ** 2", "2.0000000000000004"),
        ("round(pi, 3)", "3.142"),
        ("max(1, 2, 3) - min(4, 5) + abs(-6)", "5"),
        ("9007199254740993 * 3", "27021597764222979"),
        ("0xff", "255"),
    ],
)
async def test_the_tool_answers_with_text(context: Context, text: str, result: str) -> None:
    assert await context.run(calculator, expression=text) == {"expression": text, "result": result}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not an arithmetic expression"),
        ("2 +", "not an arithmetic expression"),
        ("1 / 0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("5 % 0.0", "division by zero"),
        ("1e999", "out of the range"),
        ("1e308 * 10", "out of the range"),
        ("10 ** 400 / 1.5", "out of range"),
        ("(-8) ** 0.5", "not a real number"),
        ("sqrt(-1)", "not a real number"),
        ("9 ** 9 ** 9", "bits"),
        ("9 ** 9 ** 9 ** 9", "bits"),
        ("(2 ** 4000) * (2 ** 4000)", "bits"),
        ("2 ** 5000", "bits"),
        ("1.5 ** 10 ** 9", "out of range"),
        ("round(5, -10 ** 9)", "round does not take"),
        ("max()", "max does not take"),
        ("max(*range(9))", "not arithmetic"),
        ("2 ^ 3", "BitXor"),
        ("1 << 99", "LShift"),
        ("True + 1", "not a number"),
        ("2j", "not a number"),
        ("'a' * 99", "a text"),
        ("x + 1", "the name 'x'"),
        ("__import__('os').system('true')", "a Call is not arithmetic"),
        ("(1).__class__", "a Attribute is not arithmetic"),
        ("[1 for _ in (1,)]", "a ListComp is not arithmetic"),
        ("abs(x := 3)", "a NamedExpr is not arithmetic"),
        ("1 < 2", "a Compare is not arithmetic"),
        ("1; 2", "not an arithmetic expression"),
        ("-" * 499 + "1", "nested deeper"),
        ("(" * 250 + "1" + ")" * 249, "not an arithmetic expression|out of range"),
        ("9" * 501, "longer than"),
    ],
)
def test_what_is_not_bounded_arithmetic_is_refused_at_once(text: str, reason: str) -> None:
    begun = time.monotonic()
    with pytest.raises(ToolFailed, match=reason):
        compute(text)
    assert time.monotonic() - begun < 1.0
