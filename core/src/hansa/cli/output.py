"""What commands print: tables for people, JSON or YAML for programs. Messages go to stderr, so that stdout holds results only.

Must not know what it prints. Warning: whatever came from a model, a tool or another person passes `clean` before it meets a
terminal, which would otherwise obey its escape sequences.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
import yaml
from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hansa import clock
from hansa.apply.scalars import is_text
from hansa.errors import FieldError, HansaError

Output = Literal["table", "json", "yaml"]
OutputFlag = Annotated[
    Output, Parameter(name=("--output", "-o"), help="How to print: a table for people, or JSON or YAML alone on stdout.")
]
WideOutput = Literal["table", "wide", "json", "yaml"]
WideFlag = Annotated[
    WideOutput,
    Parameter(name=("--output", "-o"), help="How to print: a table for people, a wide one, or JSON or YAML alone on stdout."),
]
Row = Mapping[str, Any]

_CONTROLS = {code: None for code in [*range(0x20), *range(0x7F, 0xA0)] if chr(code) not in "\n\t"}
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


class Column(msgspec.Struct, frozen=True):
    """One column: its title and how to make its text of a row."""

    title: str
    text: Callable[[Row], str]


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, as people do."""


def _block(dumper: Any, text: str) -> Any:
    # What `hansa apply` would take for something else than text has quotes: PyYAML goes by an older YAML, to which 1e3 is a text.
    style = "|" if "\n" in text else None if is_text(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _block)


def field(title: str, name: str) -> Column:
    """A column that shows one field, or a dash when the row has none."""
    return Column(title, lambda row: plain(row.get(name)))


def age(title: str, name: str) -> Column:
    """A column that shows how long ago a time was."""
    return Column(title, lambda row: ago(row.get(name)))


def plain(value: Any) -> str:
    """A value as a table shows it: text as it is, lists by comma, anything else as JSON."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    return msgspec.json.encode(value).decode()


def short(text: str, length: int = 60) -> str:
    """At most `length` characters on one line."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def ago(value: Any) -> str:
    """`12s`, `3m`, `5h`, `2d`: how long ago an RFC 3339 time was."""
    if not isinstance(value, str):
        return "-"
    return span((clock.now() - moment(value)).total_seconds())


def span(seconds: float) -> str:
    """`12s`, `3m`, `5h`, `2d`: so many seconds, none when they are negative."""
    whole = max(0, int(seconds))
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def moment(value: str) -> datetime:
    """The time that an RFC 3339 text names."""
    found = datetime.fromisoformat(value)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def clean(text: str) -> str:
    """The text without control characters, except for line feeds and tabs."""
    return text.translate(_CONTROLS)


def literal(value: Any) -> str:
    """A value for a person who decides about it, on one line: text as it is, anything else as JSON, and nothing in it invisible.

    What can't be seen, or turns the direction of the text, is written as JSON escapes it.
    """
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)


def say(message: str, *, style: str = "") -> None:
    """A message for people, on stderr; its style only on a terminal, and not where NO_COLOR is set."""
    if style and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        Console(stderr=True, soft_wrap=True).print(Text(clean(message), style=style), highlight=False)
    else:
        print(clean(message), file=sys.stderr, flush=True)


def report(error: HansaError, *, as_json: bool = False) -> None:
    """Say what went wrong, every place of it, and what can be done; or as one line of JSON, in the form of the API's answers."""
    if as_json:
        problem = {"type": f"urn:hansa:error:{error.code}", "title": error.title, "status": error.status, "detail": error.detail}
        problem |= {"code": error.code, "retryable": error.retryable, "exit_status": error.exit_code, "hint": error.hint}
        print(msgspec.json.encode({**problem, "errors": error.errors}).decode(), file=sys.stderr, flush=True)
        return
    say(f"error: {error.detail}", style="red")
    for place in error.errors:
        if error.detail not in (place.message, describe(place)):
            say(f"  {describe(place)}")
    if error.hint:
        say(f"hint: {error.hint}")


def describe(error: FieldError) -> str:
    """One line for people: `file:line:col: path: message`."""
    place = ":".join(str(part) for part in (error.file, error.line, error.column) if part is not None)
    text = ": ".join(part for part in (place, error.path, error.message) if part)
    if not error.suggestion:
        return text
    return f"{text}{', ' if error.suggestion[0].islower() else '. '}{error.suggestion}"


def show(rows: Sequence[Row], columns: Sequence[Column], output: Output) -> None:
    """Print a list: all fields as JSON or YAML, or the columns as a table."""
    if output != "table":
        show_value([dict(row) for row in rows], output)
    elif rows:
        _table([column.title for column in columns], [[clean(short(column.text(row), 200)) for column in columns] for row in rows])
    else:
        say("nothing found")


def show_value(value: Any, output: Output) -> None:
    """Print one value: as JSON, or as YAML, which is also what a table of one would be."""
    if output == "json":
        write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
    else:
        write(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


def write(text: str) -> None:
    """Put a result on stdout; cleaned when a terminal would read it."""
    sys.stdout.write(clean(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    if not sys.stdout.isatty():
        # No colours, no frames, nothing cut off: made to be read by other programs.
        widths = [max(len(line[index]) for line in (titles, *lines)) for index in range(len(titles))]
        for line in (titles, *lines):
            write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, title in enumerate(titles):
        table.add_column(title, overflow="fold", no_wrap=index == 0 and all(len(line[0]) <= 40 for line in lines))
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    Console().print(table)
