"""Verifies an export, with no server and no database: on an auditor's machine, say, with a copy of the checkpoints."""

from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from hansa.audit.chain import Finding, Kind, Mark, Row, Verifier
from hansa.audit.checkpoints import Checkpoint, Judge, Judged, Outside, fault
from hansa.audit.verdict import FORMAT, Verdict, verdict
from hansa.errors import Invalid


class Head(msgspec.Struct, frozen=True):
    """The first line: which trail, after which row the export begins, and what retention has removed."""

    format: str
    tenant: str
    after: Mark
    removed: Checkpoint | None = None


class End(msgspec.Struct, frozen=True):
    """What the last line says: how many rows there are, and the number of the last one."""

    rows: int
    last: int


class _EndLine(msgspec.Struct, forbid_unknown_fields=True):
    end: End


async def verify_lines(lines: Iterable[bytes], outside: Outside | None, trusted: Collection[str]) -> Verdict:
    """The verdict on an export. Raises `Invalid`, which names the line that can't be read."""
    reader = iter(lines)
    head = _decoded(next(reader, b""), 1, Head)
    if head.format != FORMAT:
        raise Invalid(f"line 1: the format is {head.format!r}, and this version reads {FORMAT!r}")
    numbers = await outside.numbers(head.tenant) if outside is not None else []
    verifier, end = Verifier(head.tenant, head.after, frozenset(numbers)), None
    for count, line in enumerate(reader, start=2):
        if end is not None:
            raise Invalid(f"line {count}: there is something after the end")
        if line.startswith(b'{"end":'):
            end = _decoded(line, count, _EndLine).end
        else:
            verifier.row(_decoded(line, count, Row))
    verifier.finish()
    finding = verifier.finding or _removed(head, trusted if outside is not None else None) or _cut_off(verifier, end)
    judged = Judged()
    if finding is None and outside is not None:
        # What was written after the export has checkpoints too: they say nothing of what is in it.
        within = [number for number in numbers if number <= verifier.seq]
        judged = await Judge(outside, head.tenant, trusted).judge(within, verifier.hashes, verifier.seq)
    place = outside.name if outside is not None else ""
    return verdict(verifier, head.after, place, judged=judged, finding=finding)


def _removed(head: Head, trusted: Collection[str] | None) -> Finding | None:
    """What is wrong with the statement of rows that were removed before the first one, if someone says which keys to believe."""
    if head.removed is None or trusted is None:
        return None
    wrong = fault(head.removed, head.tenant, trusted)
    if not wrong and (head.removed.why != "dropped" or (head.removed.seq == head.after.seq and head.removed.hash != head.after.hash)):
        wrong = "it says something else"
    return Finding(head.removed.seq, Kind.ANCHOR, f"the statement of the rows that are gone is not good: {wrong}") if wrong else None


def _cut_off(verifier: Verifier, end: End | None) -> Finding | None:
    if end is not None and (end.rows, end.last) == (verifier.rows, verifier.seq):
        return None
    said = f"{end.rows} rows up to {end.last}" if end is not None else "no end"
    return Finding(verifier.seq + 1, Kind.MISSING, f"the export has {verifier.rows} rows up to {verifier.seq}, and says of itself: {said}")


def _decoded(line: bytes, number: int, type_: Any) -> Any:
    try:
        return msgspec.json.decode(line, type=type_)
    except msgspec.DecodeError as error:
        raise Invalid(f"line {number}: {error}", hint="Is this what `hansa audit export` wrote?") from None
