"""The command line of the small process that runs `up`: its options as JSON, its environment as its own.

Must not know what runs in it.
"""

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from hansa.dev.up import UpOptions

FAILED = " failed: "
"""In its log: what ended it, and on the last line what to do about it."""


def command_line(options: UpOptions) -> tuple[str, ...]:
    """Runs `up` with these options, given their `environ` as its environment."""
    plain = msgspec.structs.replace(options, data=options.data.absolute(), environ={})
    return (sys.executable, "-m", "hansa.dev", msgspec.json.encode(plain, enc_hook=str).decode())


def read(argument: str) -> UpOptions:
    """The options of that command line, with our own environment. Raises `msgspec.ValidationError`."""
    options = msgspec.json.decode(argument, type=UpOptions, dec_hook=_path)
    return msgspec.structs.replace(options, environ=dict(os.environ))


def _path(_kind: type, value: Any) -> Path:
    return Path(value)
