"""Conditions in the Common Expression Language: checked when they are written, evaluated within a bound, without clock or chance.

The one door to the library. What an expression can't say of its values (a missing field, another type) is an error, never a guess.
"""

from functools import lru_cache
from typing import Any

from cel_expr_python import cel  # pyright: ignore[reportMissingTypeStubs] - it has stubs, and no mark of them

_CALLS = cel.NewEnv(variables={"args": cel.Type.Map(cel.Type.STRING, cel.Type.DYN), "tool": cel.Type.STRING})
_ANSWERS = cel.NewEnv(variables={"output": cel.Type.DYN})
_GIVEN = (cel.Type.BOOL, cel.Type.DYN)
_ERROR = cel.Type.ERROR


def flaw(expression: str) -> str:
    """Why an expression can't be a condition on `args` and `tool`; empty: it can."""
    return _flaw(_CALLS, expression)


def answer_flaw(expression: str) -> str:
    """Why an expression can't be a condition on `output`; empty: it can."""
    return _flaw(_ANSWERS, expression)


def holds(expression: str, *, args: dict[str, Any], tool: str) -> tuple[bool, str]:
    """Whether a condition gives true, and why it could not be evaluated; then it does not."""
    return _holds(_CALLS, expression, {"args": args, "tool": tool})


def answer_holds(expression: str, output: Any) -> tuple[bool, str]:
    """The same of a condition on an answer, any JSON value."""
    return _holds(_ANSWERS, expression, {"output": output})


def _flaw(environment: cel.Env, expression: str) -> str:
    try:
        given = _compiled(environment, expression).return_type()
    # The library raises RuntimeError for all that it does not understand, and says in its text what.
    except RuntimeError as error:
        return _plain(str(error))
    return "" if given in _GIVEN else f"it gives {given.name()}, not true or false"


def _holds(environment: cel.Env, expression: str, data: dict[str, Any]) -> tuple[bool, str]:
    try:
        result = _compiled(environment, expression).eval(data=data)
    # As above; also when it takes more steps than it may.
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        return False, _plain(str(error))
    if result.type() == _ERROR:
        return False, _plain(str(result.value()))
    value = result.value()
    return (value, "") if isinstance(value, bool) else (False, "it gives neither true nor false")


@lru_cache(maxsize=4096)
def _compiled(environment: cel.Env, expression: str) -> cel.Expression:
    return environment.compile(expression)


def _plain(text: str) -> str:
    """The first line, without the library's class of error."""
    line = text.splitlines()[0] if text else "it can't be understood"
    for word in ("INVALID_ARGUMENT: ", "NOT_FOUND: ", "UNKNOWN: ", "CANCELLED: ", "INTERNAL: ", "ERROR: "):
        line = line.removeprefix(word)
    return line[:300]
