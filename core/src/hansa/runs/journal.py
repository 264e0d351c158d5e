"""Where a run's steps are written: to the database, grouped, each write once; or nowhere, for a replay.

Warning: after `Fenced` nothing of this run may be written or done any more.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import structlog

from hansa.db.pool import Database
from hansa.errors import Unavailable
from hansa.runs import store
from hansa.runs.model import Claim, End, Entry, Write, canonical
from hansa_sdk import Usage

log = structlog.stdlib.get_logger("hansa.runs")


class Fenced(asyncio.CancelledError):
    """Someone else owns the run now: stop quietly. A cancellation, so that no plugin's `except Exception` holds it up."""


class ReplayEnded(asyncio.CancelledError):
    """A replay has come to the end of what is recorded."""


class Journal(Protocol):
    """What a run's context writes to."""

    def note(self, entry: Entry) -> None:
        """Keep an entry for the next write; nothing outside may depend on it before that."""
        ...

    def reach_out(self, what: str) -> None:
        """Must be called before anything outside is asked or changed: a replay ends here, and so does a run that is fenced."""
        ...

    async def write(self, *entries: Entry, usage: Usage = Usage(), end: End | None = None) -> None:
        """Write entries and everything noted; durable when this returns."""
        ...


class DatabaseJournal:
    """Writes to a session's log. Writes of parallel branches are grouped into one transaction."""

    def __init__(self, database: Database, claim: Claim, lease: float, written: Callable[[int], Awaitable[None]]) -> None:
        self._database = database
        self._claim = claim
        self._lease = lease
        self._written = written
        self._queue: list[Entry] = []
        self._usage = Usage()
        self._count = 0
        self._lock = asyncio.Lock()
        self._fenced = False

    def note(self, entry: Entry) -> None:
        self._queue.append(_encoded(entry))

    def reach_out(self, what: str) -> None:
        if self._fenced:
            raise Fenced(what)

    async def write(self, *entries: Entry, usage: Usage = Usage(), end: End | None = None) -> None:
        self._queue.extend([_encoded(entry) for entry in entries])
        self._usage = self._usage + usage
        async with self._lock:
            if self._fenced:
                raise Fenced
            if not self._queue and end is None:
                return  # another branch's write took ours along
            # A write that is under way is seen through even when the run is cancelled, and cancelled again: else its number would
            # be in doubt, and the next write under this number would be taken for this one.
            writing, cancelled = asyncio.create_task(self._write(end), name="journal.write"), None
            while not writing.done():
                try:
                    await asyncio.wait([writing])
                except asyncio.CancelledError as error:
                    cancelled = error
            if cancelled is not None and (writing.cancelled() or writing.exception() is None):
                raise cancelled
            writing.result()

    async def _write(self, end: End | None) -> None:
        batch, used = self._queue, self._usage
        self._queue, self._usage = [], Usage()
        try:
            last = await self._append(Write(self._count + 1, batch, used, end))
        except BaseException:
            self._queue[:0], self._usage = batch, used + self._usage
            raise
        if last is None:
            self._fenced = True
            raise Fenced
        self._count += 1
        await self._written(last)

    async def _append(self, write: Write) -> int | None:
        """Append, again and again while PostgreSQL is away, until the lease must be gone. The write's number makes that safe."""
        loop = asyncio.get_running_loop()
        give_up, pause = loop.time() + self._lease, 0.1
        while True:
            try:
                return await store.append(self._database, self._claim, write, lease=self._lease)
            except Unavailable as error:
                if loop.time() >= give_up:
                    return None
                log.warning("run.write_waits", run_id=str(self._claim.id), error=error.detail)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)


def _encoded(entry: Entry) -> Entry:
    """With its data as JSON text: what can't be encoded is refused where it comes from, and holds up no later write."""
    return msgspec.structs.replace(entry, data=msgspec.Raw(canonical(entry.data)))


class ReplayJournal:
    """Takes nothing: the first thing that would be written ends the replay."""

    def note(self, entry: Entry) -> None:
        raise ReplayEnded(f"{entry.type.value} at step {entry.step} is not in the log")

    def reach_out(self, what: str) -> None:
        raise ReplayEnded(f"{what} is not in the log")

    async def write(self, *entries: Entry, usage: Usage = Usage(), end: End | None = None) -> None:
        for entry in entries:
            self.note(entry)
