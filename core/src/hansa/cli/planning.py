"""`hansa validate`, `hansa plan` and `hansa diff`: what files say, and what they would change; nothing is written.

Exit status of `plan` and `diff`: 0 nothing would change, 2 something would, 1 some of it can't be.
"""

import asyncio
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from hansa.apply.model import Applied
from hansa.apply.sync.planning import Planned, Reading, plan, read_all
from hansa.cli.client import open_api
from hansa.cli.connection import Connection
from hansa.cli.output import clean, describe, literal, say, short, show_value, write
from hansa.cli.repositories import FOLDER_HELP, Repository, open_source
from hansa.cli.sync_api import SourceApi
from hansa.errors import FieldError

NOTHING, CHANGES, FAILED = 0, 2, 1
MOST_ROWS = 200
MOST_TEXT = 60_000
"""Rows and characters of a Markdown text; a comment of a pull request holds 65,536 characters."""
_MARKS = {"created": "+", "configured": "~", "deleted": "-", "failed": "!"}
_WORDS = {"created": "create", "configured": "change", "deleted": "delete", "failed": "fail"}
Form = Literal["table", "json", "markdown"]
Folder = Annotated[Path | None, Parameter(help=FOLDER_HELP)]
AllowMassDelete = Annotated[bool, Parameter(negative=(), help="As for `hansa sync`: deleting many objects is no failure then.")]


def validate(
    folder: Folder = None, *, repository: Repository | None = None, output: Annotated[Form, Parameter(name=("--output", "-o"))] = "table"
) -> int:
    """Check files by all rules that need no server; status 1 when something is wrong."""

    async def reading() -> Reading:
        async with open_source(folder, repository, None) as source:
            return await read_all(source)

    found = asyncio.run(reading())
    objects = sum(len(each.entries) for each in found.contents.values())
    if output == "json":
        show_value(
            {"commit": found.commit, "files": len(found.contents), "objects": objects, "errors": msgspec.to_builtins(found.errors)}, "json"
        )
    elif output == "markdown":
        write("\n".join(["## Hansa: validation", "", *_errors(found.errors), "" if found.errors else f"{objects} objects are well.", ""]))
    else:
        for error in found.errors:
            say(describe(error), style="red")
        say(f"{objects} objects in {len(found.contents)} files, {len(found.errors)} errors")
    return FAILED if found.errors else NOTHING


def plan_command(
    folder: Folder = None,
    *,
    repository: Repository | None = None,
    allow_mass_delete: AllowMassDelete = False,
    connection: Connection | None = None,
    output: Annotated[Form, Parameter(name=("--output", "-o"), help="For people, for programs, or Markdown for a pull request.")] = "table",
) -> int:
    """Show what `hansa sync` would create, change and delete; status 0: nothing, 2: something, 1: some of it can't be done."""
    planned = _planned(folder, repository, connection)
    if output == "json":
        show_value({**msgspec.to_builtins(planned), "counts": _counts(planned)}, "json")
    elif output == "markdown":
        write(markdown(planned))
    else:
        _tell(planned)
    return _status(planned, allow_mass_delete=allow_mass_delete)


def diff(
    folder: Folder = None,
    *,
    repository: Repository | None = None,
    allow_mass_delete: AllowMassDelete = False,
    connection: Connection | None = None,
) -> int:
    """Show each value that would change, before and after; status as of `hansa plan`."""
    planned = _planned(folder, repository, connection)
    for outcome in planned.changes:
        write(f"{_MARKS[outcome.action]} {_title(outcome)}\n")
        for change in outcome.changes:
            if change.before is not None:
                write(f"    - {change.path}: {literal(change.before)}\n")
            if change.after is not None:
                write(f"    + {change.path}: {literal(change.after)}\n")
    _problems(planned)
    return _status(planned, allow_mass_delete=allow_mass_delete)


def markdown(planned: Planned) -> str:
    """A plan as a comment of a pull request."""
    counts = _counts(planned)
    told = ", ".join(f"{counts[action]} to {word}" for action, word in _WORDS.items() if counts[action]) or "nothing to do"
    lines = ["## Hansa: plan", "", f"{told}, at commit {_code(planned.commit[:12])} of {_code(planned.origin)}.", ""]
    if planned.refusal:
        lines += [f"**{_text(planned.refusal)}.** `hansa sync` does not do that without `--allow-mass-delete`.", ""]
    rows = [outcome for outcome in planned.outcomes if outcome.action in _MARKS]
    if rows:
        lines += ["| | object | what |", "| --- | --- | --- |"]
        lines += [f"| {_WORDS[row.action]} | {_code(_title(row))} | {_what(row)} |" for row in rows[:MOST_ROWS]]
        lines += ["", f"{len(rows) - MOST_ROWS} more are not shown." if len(rows) > MOST_ROWS else ""]
    lines += _errors(planned.errors)
    lines += [f"- {_text(each)}" for each in planned.waiting[:MOST_ROWS]]
    text = "\n".join([*lines, ""])
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT].rpartition("\n")[0] + "\n\nThe rest is cut off.\n"


def _planned(folder: Path | None, repository: Repository | None, connection: Connection | None) -> Planned:
    with open_api(connection or Connection()) as api:

        async def planning() -> Planned:
            async with open_source(folder, repository, connection) as source:
                return await plan(source, SourceApi(api, source.origin))

        return asyncio.run(planning())


def _tell(planned: Planned) -> None:
    for outcome in planned.changes:
        write(f"{_MARKS[outcome.action]} {_title(outcome)}{_paths(outcome)}\n")
    _problems(planned)
    counts = _counts(planned)
    say(", ".join(f"{counts[action]} to {word}" for action, word in _WORDS.items() if counts[action]) or "nothing would change")


def _problems(planned: Planned) -> None:
    for outcome in planned.outcomes:
        for error in outcome.errors:
            say(f"! {_title(outcome)}: {describe(error)}", style="red")
        if outcome.note:
            say(f"  {_title(outcome)}: {outcome.note}", style="yellow")
    for error in planned.errors:
        say(f"! {describe(error)}", style="red")
    for waiting in planned.waiting:
        say(waiting, style="yellow")
    if planned.refusal:
        say(f"! {planned.refusal}: nothing would be deleted without --allow-mass-delete", style="red")


def _status(planned: Planned, *, allow_mass_delete: bool) -> int:
    if planned.failed or (planned.refusal and not allow_mass_delete):
        return FAILED
    return CHANGES if planned.changes else NOTHING


def _counts(planned: Planned) -> dict[str, int]:
    counts = {action: sum(outcome.action == action for outcome in planned.outcomes) for action in (*_MARKS, "unchanged")}
    counts["failed"] += len(planned.errors)
    return counts


def _title(outcome: Applied) -> str:
    return f"{outcome.kind.lower()}/{outcome.name}{f' in tenant {outcome.tenant}' if outcome.tenant else ''}"


def _paths(outcome: Applied) -> str:
    return (
        f": {short(', '.join(change.path for change in outcome.changes), 160)}"
        if outcome.action == "configured" and outcome.changes
        else ""
    )


def _what(outcome: Applied) -> str:
    if outcome.action == "failed":
        return "<br>".join(_text(describe(error)) for error in outcome.errors)
    if outcome.action != "configured":
        return ""
    return "<br>".join(f"{_code(change.path)}: {_value(change.before)} → {_value(change.after)}" for change in outcome.changes[:20])


def _value(value: Any) -> str:
    return "*nothing*" if value is None else _code(short(literal(value), 80))


def _errors(errors: tuple[FieldError, ...]) -> list[str]:
    more = [f"- {len(errors) - MOST_ROWS} more"] if len(errors) > MOST_ROWS else []
    return [f"- {_text(describe(error))}" for error in errors[:MOST_ROWS]] + more


def _code(text: str) -> str:
    """A text as code, in a table, whatever is in it."""
    return f"`{short(clean(text), 200).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def _text(text: str) -> str:
    """A text that is no markup."""
    line = short(clean(text), 400)
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in line).replace("@", "@\u200b")
