"""Reads an archive into a session of the same id: all of it or nothing, and nothing before every line was found right.

Runs that had not ended are canceled: whoever they waited for is elsewhere. Warning: an archive is believed, for its seals have no
key; so only who may change everything may import.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import UUID

import msgspec

from hansa import clock
from hansa.auth.model import Principal
from hansa.db.pool import Connection
from hansa.errors import Conflict, FieldError, Invalid, TooLarge
from hansa.runs.log import store
from hansa.runs.log.archive import ENDED, EventLine, Line, Reader, RevisionLine, RunLine, SessionLine, ValueLine
from hansa.runs.log.keeping import Values
from hansa.runs.model import EventType, canonical
from hansa_crds import Agent

BATCH_BYTES, BATCH = 4_000_000, 500
FUTURE_SECONDS = 86_400
LINE_BYTES = 67_108_864
"""Longest line of an archive: one is read whole."""


class Spool:
    """An archive that was read whole and found right. Use `spooled`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.reader = Reader()

    @property
    def digest(self) -> bytes:
        """The SHA-256 of all that came in."""
        return self._digest.digest()

    async def fill(self, chunks: AsyncIterable[bytes], most: int) -> None:
        """Take it all in. Raises `Invalid` naming the first line that is wrong, or `TooLarge`."""
        size = 0
        async for chunk in chunks:
            size += len(chunk)
            if size > most:
                raise TooLarge(f"the archive is larger than the {most} bytes that are taken", hint="Raise HANSA_SERVER_IMPORT_BYTES.")
            self._digest.update(chunk)
            self._file.write(chunk)
        await asyncio.to_thread(self._read)

    def _read(self) -> None:
        for text in self._texts():
            self.reader.line(text)
        self.reader.finish()

    def lines(self) -> Iterator[Line]:
        """All lines again."""
        reader = Reader()
        for text in self._texts():
            yield reader.line(text)

    def _texts(self) -> Iterator[bytes]:
        self._file.seek(0)
        number = 0
        while text := self._file.readline(LINE_BYTES + 1):
            number += 1
            if len(text) > LINE_BYTES:
                what = f"longer than the {LINE_BYTES} bytes that a line may have"
                raise Invalid(f"line {number}: {what}", errors=(FieldError(f"line {number}", "archive", what, line=number),))
            yield text.rstrip(b"\n")


@contextmanager
def spooled(folder: Path) -> Iterator[Spool]:
    """A spool over a nameless file of a folder, which goes with it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        yield Spool(file)


async def keep_values(values: Values, principal: Principal, spool: Spool) -> None:
    """Keep the archive's values. Before the session is there nothing refers to them: should it not come to that, retention has them."""
    batch: dict[bytes, bytes] = {}
    size = 0

    for line in spool.lines():
        if isinstance(line, ValueLine):
            body = bytes(line.body)
            batch[hashlib.sha256(body).digest()] = body
            size += len(body)
            if size >= BATCH_BYTES:
                await values.keep(principal.tenant_id, batch)
                batch, size = {}, 0
    await values.keep(principal.tenant_id, batch)


async def write(connection: Connection, spool: Spool) -> UUID:
    """Write session, runs and events, in the caller's transaction. Raises `Conflict` for what is there already or is another."""
    session = spool.reader.finish()
    _check_time(session)
    open_runs = [run for run in spool.reader.runs.values() if run.state not in ENDED]
    last = session.last_seq + len(open_runs)
    newest = max((run.queued_seq for run in spool.reader.runs.values()), default=0)
    if not await store.add_session(connection, session, last_seq=last, newest_run=newest):
        raise Conflict(f"session {session.id} is here already, or is just being removed", hint="An import never changes a session.")
    for line in spool.lines():
        if isinstance(line, RevisionLine):
            await _revision(connection, session.agent, line)
    if not await store.add_runs(connection, session.id, session.agent, [_ended(run) for run in spool.reader.runs.values()]):
        raise Conflict("a run of the archive is here already, in another session")
    await store.add_references(connection, session.id, sorted(spool.reader.values))
    batch: list[store.EventRow] = []
    for line in spool.lines():
        if isinstance(line, EventLine):
            batch.append(store.EventRow(line.seq, line.run_id, line.type.value, line.step, canonical(line.data).decode(), line.at))
            if len(batch) >= BATCH:
                await store.add_events(connection, session.id, batch)
                batch = []
    now = clock.now()
    canceled = [
        store.EventRow(session.last_seq + n, run.id, EventType.RUN_CANCELED.value, None, "{}", now)
        for n, run in enumerate(open_runs, start=1)
    ]
    await store.add_events(connection, session.id, [*batch, *canceled])
    return session.id


def _check_time(session: SessionLine) -> None:
    """Ids say when they were made, and the log is kept by that."""
    made = (session.id.int >> 80) / 1000
    if session.id.version != 7 or made > clock.now().timestamp() + FUTURE_SECONDS:
        raise Invalid(f"the session's id {session.id} is no UUIDv7 of the past")


async def _revision(connection: Connection, agent: str, line: RevisionLine) -> None:
    """An agent that is here keeps its own revisions, of which the archive may name only what they are."""
    try:
        manifest = msgspec.convert(line.manifest, Agent)
    except msgspec.ValidationError as error:
        raise Invalid(f"revision {line.revision} of agent {agent!r} is no manifest of an Agent: {error}") from error
    known = await store.find_revision(connection, agent, line.revision)
    if known.manifest is not None:
        if canonical(msgspec.json.decode(known.manifest)) != canonical(line.manifest):
            raise Conflict(f"revision {line.revision} of agent {agent!r} is here and is another", hint="Import into another tenant.")
    elif manifest.metadata.name != agent:
        raise Invalid(f"revision {line.revision} is one of agent {manifest.metadata.name!r}, and the session is one of {agent!r}")
    elif known.agent:
        raise Conflict(
            f"agent {agent!r} is here and has no revision {line.revision}",
            hint="An import gives no new revisions to an agent that is here.",
        )
    else:
        digest = hashlib.sha256(msgspec.json.encode(manifest.spec, order="sorted")).digest()
        await store.add_revision(connection, agent, line.revision, digest=digest, manifest=canonical(line.manifest).decode())


def _ended(run: RunLine) -> RunLine:
    if run.state in ENDED:
        return run
    return msgspec.structs.replace(run, state="canceled", finished_at=clock.now())
