"""An archive that was touched anywhere is refused with the line; one that was sealed anew is refused where it makes no sense."""

import hashlib
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import Invalid
from hansa.runs.log.archive import BROKEN, FORMAT, Reader, Writer

SESSION, RUN, OTHER = UUID(int=1), UUID(int=2), UUID(int=3)
AT = "2026-01-02T03:04:05.678901+00:00"
BODY = b'"' + b"x" * 2000 + b'"'
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
REFERENCE = {"$value": DIGEST, "bytes": len(BODY)}
Parts = list[tuple[str, Any]]


def parts() -> Parts:
    """What stands in a right archive."""
    run = {"id": RUN, "queued_seq": 1, "revision": 1, "state": "completed", "input": REFERENCE, "output": 7, "error": None}
    usage = {
        "input_tokens": 1,
        "output_tokens": 2,
        "created_at": AT,
        "started_at": AT,
        "finished_at": None,
        "interrupted": False,
        "rolled_back": False,
    }
    event = {"run_id": RUN, "step": None, "at": AT}
    return [
        (
            "session",
            {"format": FORMAT, "id": SESSION, "agent": "a", "created_at": AT, "last_seq": 3, "forked_from": None, "forked_seq": None},
        ),
        ("revision", {"revision": 1, "manifest": {"kind": "Agent"}}),
        ("value", {"digest": DIGEST, "body": "x" * 2000}),
        ("run", {**run, **usage}),
        ("event", {**event, "seq": 1, "type": "run.queued", "data": {"input": REFERENCE}}),
        ("event", {**event, "seq": 2, "type": "model.completed", "step": "1", "data": {"text": "hello"}}),
        ("event", {**event, "seq": 3, "type": "run.completed", "data": {"output": 7}}),
    ]


def sealed(of: Parts) -> list[bytes]:
    writer = Writer()
    return [*(writer.line(kind, body) for kind, body in of), writer.end()]


def read(lines: list[bytes]) -> Reader:
    reader = Reader()
    for line in lines:
        reader.line(line.rstrip(b"\n"))
    reader.finish()
    return reader


WHOLE = sealed(parts())


def test_what_was_written_is_read() -> None:
    reader = read(WHOLE)
    assert (reader.lines, set(reader.runs), len(reader.values), reader.revisions) == (8, {RUN}, 1, {1})


@settings(max_examples=300)
@given(st.data())
def test_any_changed_byte_is_found_in_its_line(data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(WHOLE) - 1))
    line = WHOLE[number].rstrip(b"\n")
    place, byte = data.draw(st.integers(0, len(line) - 1)), data.draw(st.integers(0, 255).filter(lambda each: each != 10))
    changed = line[:place] + bytes([byte]) + line[place + 1 :]
    if changed == line:
        return
    with pytest.raises(Invalid, match=f"^line {number + 1}: "):
        read([*WHOLE[:number], changed, *WHOLE[number + 1 :]])


@pytest.mark.parametrize("number", range(len(WHOLE)))
def test_a_missing_moved_or_doubled_line_is_found(number: int) -> None:
    without = [*WHOLE[:number], *WHOLE[number + 1 :]]
    for lines in (without, [*without, WHOLE[number]], [*WHOLE[: number + 1], *WHOLE[number:]]):
        if lines == WHOLE:
            continue
        with pytest.raises(Invalid, match=rf"^(line ({number + 1}|{number + 2}): |the file breaks off after line 7)"):
            read(lines)


@pytest.mark.parametrize("number", range(len(WHOLE)))
def test_a_file_that_was_cut_off_is_refused(number: int) -> None:
    with pytest.raises(Invalid, match=f"breaks off after line {number}"):
        read(WHOLE[:number])
    if WHOLE[number] != WHOLE[-1]:
        with pytest.raises(Invalid, match=f"^line {number + 1}: "):
            read([*WHOLE[:number], WHOLE[number][:-5]])


def test_an_export_that_told_of_its_failure_is_refused_with_it() -> None:
    with pytest.raises(Invalid, match=r"^line 4: the export broke off there: .*the value is missing"):
        read([*WHOLE[:3], BROKEN + b'{"detail":"the value is missing"}}'])


def changed(number: int, **changes: Any) -> Parts:
    found = parts()
    found[number] = (found[number][0], {**found[number][1], **changes})
    return found


SENSELESS: dict[str, tuple[Parts, int]] = {
    "another format": (changed(0, format=2), 1),
    "a field nobody knows": (changed(0, more=1), 1),
    "an agent with a NUL": (changed(0, agent="a\x00"), 1),
    "fewer events than said": (changed(0, last_seq=4), 8),
    "more events than said": (changed(0, last_seq=2), 8),
    "no session first": (parts()[1:], 1),
    "two sessions": ([parts()[0], *parts()], 2),
    "another value": (changed(2, body="y"), 3),
    "a value that is not there": ([*parts()[:2], *parts()[3:]], 3),
    "a run on a revision that is not there": (changed(3, revision=2), 4),
    "a run in no state": (changed(3, state="happy"), 4),
    "a run twice": ([*parts()[:4], *parts()[3:]], 5),
    "a run that nothing queued": (changed(3, queued_seq=2), 5),
    "a run beyond the end": (changed(3, queued_seq=9), 5),
    "negative tokens": (changed(3, input_tokens=-1), 4),
    "an event of another run": (changed(5, run_id=OTHER), 6),
    "a gap": (changed(5, seq=3), 6),
    "an event of no type": (changed(5, type="made.up"), 6),
    "data that is no object": (changed(5, data=[1]), 6),
    "a time without its zone": (changed(5, at="2026-01-02T03:04:05"), 6),
    "a time before all time": (changed(5, at="0001-01-01T00:00:00+23:59"), 6),
    "a session as old as can be": (changed(0, created_at="0001-01-01T00:00:00Z"), 1),
    "a run of a far future": (changed(3, finished_at="9999-12-31T23:59:59-23:59"), 4),
    "a made-up reference": (changed(5, data={"text": {"$value": f"sha256:{'0' * 64}", "bytes": 1}}), 6),
    "what only looks like a reference": (changed(5, data={"text": {"$value": 1}}), 6),
    "a kind nobody knows": ([*parts(), ("note", {})], 8),
}


@pytest.mark.parametrize("what", SENSELESS)
def test_what_makes_no_sense_is_refused_in_its_line_though_it_is_sealed(what: str) -> None:
    of, number = SENSELESS[what]
    with pytest.raises(Invalid, match=f"^line {number}: "):
        read(sealed(of))


def test_nesting_without_end_is_refused() -> None:
    text = b'"event":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}"
    last = WHOLE[3][11:75]
    line = b'{"sha256":"' + hashlib.sha256(last + text).hexdigest().encode() + b'",' + text
    with pytest.raises(Invalid, match=r"^line 5: "):
        read([*WHOLE[:4], line])
