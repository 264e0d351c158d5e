"""An exported session: JSON lines, each sealed with a SHA-256 over itself and all before it. Pure.

    {"sha256":"...","session":{...}}    first: the format's version, the session, how many events follow
    {"sha256":"...","revision":{...}}   each revision of the agent that a run was on
    {"sha256":"...","value":{...}}      each value, before the first line that refers to it
    {"sha256":"...","run":{...}}        each run, in the order of the log
    {"sha256":"...","event":{...}}      each event, from 1 without a gap
    {"sha256":"...","end":{...}}        last: without it the file was cut off

Warning: the seals show damage and clumsy changes. Whoever changes a line can seal all lines anew: there is no key in them.
"""

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec

from hansa.errors import Damaged, FieldError, Invalid
from hansa.runs.model import STATES, EventType, canonical
from hansa.runs.values import reference

FORMAT = 1
ENDED = frozenset({"completed", "failed", "canceled"})
BROKEN = b'{"error":'
"""How the line begins that stands where an export could not go on."""
SEAL, SEALED = b'{"sha256":"', len(b'{"sha256":"') + 64 + len(b'",')
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Name = Annotated[str, msgspec.Meta(max_length=1000, pattern=r"\A[^\x00]*\Z")]
Time = Annotated[datetime, msgspec.Meta(tz=True)]
FIRST, LAST = datetime(2020, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in a line."""


class SessionLine(Line, frozen=True):
    """The session; `format` is the version of all that follows; `revision` and `namespace` are null in files of earlier versions."""

    format: int
    id: UUID
    agent: Name
    created_at: Time
    last_seq: Count
    forked_from: UUID | None
    forked_seq: Count | None
    revision: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    smoke: bool = False
    namespace: Annotated[str, msgspec.Meta(max_length=63, pattern=r"\A[a-z0-9-]*\Z")] | None = None


class RevisionLine(Line, frozen=True):
    """A revision of the agent, as its manifest."""

    revision: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    manifest: dict[str, Any]


class ValueLine(Line, frozen=True):
    """A value; the digest is that of the body as it stands there."""

    digest: str
    body: msgspec.Raw


class RunLine(Line, frozen=True):
    """A run; `queued_seq` is the number of its run.queued event; `started_by` is null in files of earlier versions."""

    id: UUID
    queued_seq: Count
    revision: int
    state: str
    input: Any
    output: Any
    error: dict[str, str] | None
    input_tokens: Count
    output_tokens: Count
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    interrupted: bool
    rolled_back: bool
    started_by: dict[str, Any] | None = None


class EventLine(Line, frozen=True):
    """An event of the log."""

    seq: Count
    run_id: UUID
    type: EventType
    step: Name | None
    data: dict[str, Any]
    at: Time


class EndLine(Line, frozen=True):
    """The end; `lines` counts those before it."""

    lines: int


KINDS: dict[str, type[Line]] = {
    "session": SessionLine,
    "revision": RevisionLine,
    "value": ValueLine,
    "run": RunLine,
    "event": EventLine,
    "end": EndLine,
}


class Writer:
    """Seals lines."""

    def __init__(self) -> None:
        self._last = b""
        self._lines = 0

    def line(self, kind: str, body: Any) -> bytes:
        """One line of a kind, with its line end; `body` is any JSON-able value."""
        rest = b'"' + kind.encode() + b'":' + canonical(body) + b"}"
        self._last = _seal(self._last, rest)
        self._lines += 1
        return SEAL + self._last + b'",' + rest + b"\n"

    def end(self) -> bytes:
        """The last line."""
        return self.line("end", EndLine(self._lines))


class Reader:
    """Opens lines and finds whatever is wrong with them, naming the line."""

    def __init__(self) -> None:
        self._last = b""
        self.lines = 0
        self.session: SessionLine | None = None
        self.runs: dict[UUID, RunLine] = {}
        self.values: set[bytes] = set()
        self.revisions: set[int] = set()
        self._queued: dict[int, UUID] = {}
        self._seq = 0
        self._ended = False

    def line(self, text: bytes) -> Line:
        """What stands in the next line (without its line end). Raises `Invalid`."""
        self.lines += 1
        found = self._opened(text)
        try:
            self._check(found)
        except Damaged as error:
            raise self._wrong(error.detail) from error
        return found

    def finish(self) -> SessionLine:
        """The session, once every line was read. Raises `Invalid` when the end is missing."""
        if self.session is None or not self._ended:
            raise Invalid(f"the file breaks off after line {self.lines}: its last line is missing", hint="Export the session again.")
        return self.session

    def _opened(self, text: bytes) -> Line:
        if text.startswith(BROKEN):
            raise self._wrong(f"the export broke off there: {text.decode(errors='replace')[:500]}")
        rest = text[SEALED:]
        if not text.startswith(SEAL) or text[len(SEAL) : SEALED] != _seal(self._last, rest) + b'",':
            raise self._wrong("its seal is not right: it, or the order of lines up to it, is not as it was exported")
        self._last = text[len(SEAL) : SEALED - 2]
        try:
            ((kind, body),) = msgspec.json.decode(b"{" + rest, type=dict[str, msgspec.Raw]).items()
            return _in_time(msgspec.json.decode(body, type=KINDS[kind]))
        except (msgspec.MsgspecError, KeyError, ValueError, RecursionError) as error:
            raise self._wrong(f"it is no line of format {FORMAT}: {error}") from error

    def _check(self, found: Line) -> None:
        first = self.lines == 1
        if self._ended or first != isinstance(found, SessionLine):
            raise self._wrong("the session must stand first, once, and nothing after the end")
        match found:
            case SessionLine():
                if found.format != FORMAT:
                    raise self._wrong(f"its format is {found.format}; this version of Hansa reads {FORMAT}")
                self.session = found
            case RevisionLine():
                self.revisions.add(found.revision)
            case ValueLine():
                digest = hashlib.sha256(found.body).digest()
                if found.digest != f"sha256:{digest.hex()}":
                    raise self._wrong(f"its value has not the digest {found.digest[:80]}")
                self.values.add(digest)
            case RunLine():
                self._check_run(found)
            case EventLine():
                self._check_event(found)
            case _:
                self._check_end(found)

    def _check_run(self, run: RunLine) -> None:
        if run.state not in STATES or run.revision not in self.revisions or run.id in self.runs or run.queued_seq in self._queued:
            raise self._wrong(f"run {run.id} has no known state or revision, or stands there twice")
        self._refer(run.input, run.output)
        self.runs[run.id] = run
        self._queued[run.queued_seq] = run.id

    def _check_event(self, event: EventLine) -> None:
        self._seq += 1
        if event.seq != self._seq or event.run_id not in self.runs:
            raise self._wrong(f"its event has the number {event.seq} instead of {self._seq}, or its run is not there")
        if (event.type is EventType.RUN_QUEUED) != (self._queued.get(event.seq) == event.run_id):
            raise self._wrong(f"its run was not queued by event {event.seq}")
        self._refer(*event.data.values())

    def _check_end(self, end: Line) -> None:
        self._ended = True
        lines = end.lines if isinstance(end, EndLine) else -1
        last = self.session.last_seq if self.session else -1
        if self.session is not None and self.session.revision is not None and self.session.revision not in self.revisions:
            raise self._wrong(f"revision {self.session.revision} of the session does not stand before")
        if lines != self.lines - 1 or self._seq != last or any(seq > last for seq in self._queued):
            raise self._wrong("lines, events or runs are missing")

    def _refer(self, *values: Any) -> None:
        for there in map(reference, values):
            if there is not None and there.digest not in self.values:
                raise self._wrong(f"the value {there.value} is referred to and does not stand before")

    def _wrong(self, what: str) -> Invalid:
        return Invalid(f"line {self.lines}: {what}", errors=(FieldError(f"line {self.lines}", "archive", what, line=self.lines),))


def _seal(last: bytes, rest: bytes) -> bytes:
    return hashlib.sha256(last + rest).hexdigest().encode()


def _in_time(line: Line) -> Line:
    """The line, unless a time in it is one that nothing of Hansa can have happened at. Raises `ValueError`."""
    for name in line.__struct_fields__:
        value = getattr(line, name)
        if isinstance(value, datetime) and not FIRST <= value <= LAST:
            raise ValueError(f"{name} must be between {FIRST.year} and {LAST.year}, got {value.isoformat()}")
    return line
