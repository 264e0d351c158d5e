"""What is wrong with what was typed: the error of the command line itself, a leaf of the tree in `hansa.errors`.

HansaError
└── UsageError              2  usage       what was typed contradicts itself; nothing was asked of a server
"""

from datetime import datetime
from typing import Any

import msgspec

from hansa.errors import HansaError


class UsageError(HansaError):
    """The command was typed in a way that says too little or contradicts itself."""

    code, status, title, exit_code = "usage", 400, "Wrong usage", 2


def json_value(text: str, name: str) -> Any:
    """The value that was typed as JSON for option or argument `name`. Raises `UsageError`."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"{name} is not JSON: {error}", hint="A text has double quotes in JSON: '\"like this\"'.") from error


def time_of(text: str, option: str) -> str:
    """A time that was typed, with its zone: this machine's where none stands. Raises `UsageError`."""
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{option} is no time: {error}", hint="Write it like 2030-01-31T08:00 or 2030-01-31T08:00Z.") from error
