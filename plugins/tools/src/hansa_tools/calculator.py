"""The tool `calculator`: arithmetic on a parsed expression, with bounds, and nothing that runs code.

Warning: every operation that can grow a number is bounded before it is done; keep it so when adding one.
"""

import ast
import math
import warnings
from typing import Annotated

from msgspec import Meta

from hansa_sdk import ToolContext, ToolFailed, tool

Number = int | float

MAX_LENGTH = 500
MAX_DEPTH = 60
MAX_BITS = 4096
MAX_DIGITS = 20
"""Of `round`: more would first compute a power of ten of that size."""

_CONSTANTS = {"pi": math.pi, "e": math.e}
_FUNCTIONS = ("abs", "max", "min", "round", "sqrt")

Expression = Annotated[
    str,
    Meta(
        max_length=MAX_LENGTH,
        description="Numbers, parentheses, + - * / // % **, abs max min round sqrt, pi and e. Example: `(3 + 4) * 2 ** 10 / 7`.",
    ),
]


@tool(effect="read", timeout=5.0)
async def calculator(context: ToolContext, *, expression: Expression) -> dict[str, str]:
    """Compute an arithmetic expression exactly as Python would."""
    return {"expression": expression, "result": str(compute(expression))}


def compute(expression: str) -> Number:
    """The value of an arithmetic expression. Raises `ToolFailed` and nothing else, whatever the text is."""
    if len(expression) > MAX_LENGTH:
        raise ToolFailed(f"the expression is longer than {MAX_LENGTH} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(expression.strip(), mode="eval")
        value = _value(tree.body, 0)
    except SyntaxError as error:
        raise ToolFailed(f"not an arithmetic expression: {error.msg}", hint="Write it as in `(3 + 4) * 2 ** 10`.") from error
    except ZeroDivisionError as error:
        raise ToolFailed("division by zero") from error
    except (OverflowError, ValueError, MemoryError, RecursionError) as error:
        raise ToolFailed("the expression or its value is out of range") from error
    return _finite(value)


def _value(node: ast.expr, depth: int) -> Number:
    if depth > MAX_DEPTH:
        raise ToolFailed(f"the expression is nested deeper than {MAX_DEPTH} levels")
    match node:
        case ast.Constant(value=bool() | complex()):
            raise ToolFailed(f"{node.value} is not a number here")
        case ast.Constant(value=int() | float() as number):
            return _finite(number)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand, depth + 1)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, depth + 1)
        case ast.BinOp(left=left, op=operation, right=right):
            return _finite(_combined(operation, _value(left, depth + 1), _value(right, depth + 1)))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _finite(_called(name, [_value(argument, depth + 1) for argument in arguments]))
        case _:
            raise ToolFailed(f"{_shown(node)} is not arithmetic", hint=f"Functions are {', '.join(_FUNCTIONS)}.")


def _combined(operation: ast.operator, left: Number, right: Number) -> Number:
    match operation:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > MAX_BITS + 1:
                raise ToolFailed(f"the product has more than {MAX_BITS} bits")
            return left * right
        case ast.Div():
            return left / right
        case ast.FloorDiv():
            return left // right
        case ast.Mod():
            return left % right
        case ast.Pow():
            return _power(left, right)
        case _:
            raise ToolFailed(f"the operator {type(operation).__name__} is not arithmetic", hint="Powers are written `**`.")


def _power(left: Number, right: Number) -> Number:
    if isinstance(left, int) and isinstance(right, int) and right > 0 and abs(left) > 1 and (left.bit_length() - 1) * right > MAX_BITS:
        raise ToolFailed(f"the power has more than {MAX_BITS} bits")
    result: Number | complex = left**right
    if isinstance(result, complex):
        raise ToolFailed("the power of a negative number to a fraction is not a real number")
    return result


def _called(name: str, arguments: list[Number]) -> Number:
    match name, arguments:
        case "abs", [number]:
            return abs(number)
        case "sqrt", [number]:
            if number < 0:
                raise ToolFailed("the square root of a negative number is not a real number")
            return math.sqrt(number)
        case "round", [number]:
            return round(number)
        case "round", [number, int() as digits] if abs(digits) <= MAX_DIGITS:
            return round(number, digits)
        case "max", [_, _, *_]:
            return max(arguments)
        case "min", [_, _, *_]:
            return min(arguments)
        case _:
            raise ToolFailed(f"{name} does not take these {len(arguments)} arguments")


def _finite(number: Number) -> Number:
    if isinstance(number, int):
        if number.bit_length() > MAX_BITS:
            raise ToolFailed(f"a number has more than {MAX_BITS} bits")
    elif not math.isfinite(number):
        raise ToolFailed("a number is out of the range of floating point")
    return number


def _shown(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return f"the name {name[:40]!r}"
        case ast.Constant():
            return "a text"
        case _:
            return f"a {type(node).__name__}"
