"""Where a run's steps are written: to the database, grouped, each write once; or nowhere, for a replay.

What the run has learned is written soon (`put`), what it is about to do is written before it is done (`write`): entries are kept in
order, so nothing durable ever depends on something that is not. Warning: after `Fenced` nothing of this run may be done any more.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec
import structlog

from hansa.runs.model import Ask, Claim, End, Entry, Grant, Spend, Unsent, Wait, Write, Written
from hansa.runs.values import split_fields, split_whole
from hansa_sdk import Usage

log = structlog.stdlib.get_logger("hansa.runs")
SOON = 0.005
"""Seconds that a result waits for company: mostly the next intent takes it along."""
NOTHING = Usage()


class Fenced(asyncio.CancelledError):
    """Someone else owns the run now: stop quietly. A cancellation, so that no plugin's `except Exception` holds it up."""


class ReplayEnded(asyncio.CancelledError):
    """A replay has come to the end of what is recorded."""


class Journal(Protocol):
    """What a run's context writes to."""

    def note(self, entry: Entry) -> None:
        """Keep an entry for the next write; nothing outside may depend on it before that."""
        ...

    def put(self, entry: Entry, *, usage: Usage = NOTHING) -> None:
        """Write an entry soon, without waiting for it: for what may be lost and then is done again."""
        ...

    @property
    def metered(self) -> bool:
        """Whether the run's tenant has a budget, as of the last write."""
        ...

    async def reserve(self, ask: Ask) -> Grant:
        """Reserve what a call of a model can take at most. Raises `Fenced`."""
        ...

    async def count_message(self) -> Unsent | None:
        """Count a message that is about to be written; why it may not be, if so."""
        ...

    def spend(self, spends: Sequence[Spend]) -> None:
        """Count what calls of models took, with the next write."""
        ...

    def reach_out(self, what: str) -> None:
        """Must be called before anything outside is asked or changed: a replay ends here, and so does a run that is fenced."""
        ...

    async def write(self, *entries: Entry, wait: Wait | None = None, end: End | None = None) -> str:
        """Write entries and everything before them; durable when this returns. The run's state after it."""
        ...


class Writer(Protocol):
    """What carries writes to the database, several runs' at a time."""

    async def write(self, claim: Claim, write: Write) -> Written | None:
        """None: fenced."""
        ...

    async def reserve(self, claim: Claim, ask: Ask) -> Grant:
        """See `Journal.reserve`; outcome `fenced`: someone else owns the run."""
        ...

    async def count_message(self, claim: Claim) -> Unsent | None:
        """See `Journal.count_message`."""
        ...


class DatabaseJournal:
    """Writes to a session's log, one write at a time, each with all that has come together meanwhile."""

    def __init__(
        self,
        writer: Writer,
        claim: Claim,
        *,
        written: Callable[[int], Awaitable[None]],
        fenced: Callable[[], None],
        metered: bool = False,
    ) -> None:
        self.metered = metered
        self._writer = writer
        self._claim = claim
        self._written = written
        self._on_fenced = fenced
        self._entries: list[Entry] = []
        self._waits: list[Wait] = []
        self._usage = NOTHING
        self._spends: list[Spend] = []
        self._end: End | None = None
        self._taken: dict[bytes, bytes] = {}
        self._count = 0
        self._pump: asyncio.Task[None] | None = None
        self._soon: asyncio.TimerHandle | None = None
        self._state = "running"
        self._broken: BaseException | None = None

    def note(self, entry: Entry) -> None:
        self._entries.append(self._encoded(entry))

    def put(self, entry: Entry, *, usage: Usage = NOTHING) -> None:
        self._entries.append(self._encoded(entry))
        self._usage = self._usage + usage
        if self._soon is None and self._pump is None:
            self._soon = asyncio.get_running_loop().call_later(SOON, self._begin)

    def reach_out(self, what: str) -> None:
        if self._broken is not None:
            raise Fenced(what)

    async def reserve(self, ask: Ask) -> Grant:
        grant = await self._writer.reserve(self._claim, ask)
        if grant.outcome == "fenced" or self._broken is not None:
            self._on_fenced()
            raise Fenced(f"the model request at step {ask.step}")
        return grant

    async def count_message(self) -> Unsent | None:
        return await self._writer.count_message(self._claim) if self.metered else None

    def spend(self, spends: Sequence[Spend]) -> None:
        self._spends.extend(spends)

    async def write(self, *entries: Entry, wait: Wait | None = None, end: End | None = None) -> str:
        self._entries.extend([self._encoded(entry) for entry in entries])
        if wait is not None:
            self._waits.append(wait)
        if end is not None:
            self._end = self._encoded_end(end)
        # A write that is under way is seen through even when the run is cancelled: else its number would be in doubt, and the next
        # write under this number would be taken for this one. So it is the pump's, which nobody cancels.
        while self._broken is None and (self._entries or self._end is not None or self._pump is not None):
            await asyncio.shield(self._begin())
        if self._broken is not None:
            raise self._broken
        return self._state

    async def close(self) -> None:
        """Write what was put, unless fenced; safe to call when the run was left."""
        if self._soon is not None or self._spends:
            self._begin()
        if self._pump is not None:
            await asyncio.wait([self._pump])

    def _begin(self) -> "asyncio.Task[None]":
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._run(), name="journal")
        return self._pump

    async def _run(self) -> None:
        try:
            while (self._entries or self._spends or self._end is not None) and self._broken is None:
                self._count += 1
                write = Write(self._count, self._entries, self._waits, self._usage, self._end, self._taken, self._spends)
                self._entries, self._waits, self._usage, self._end, self._taken = [], [], NOTHING, None, {}
                self._spends = []
                written = await self._writer.write(self._claim, write)
                if written is None:
                    self._broken = Fenced()
                    self._on_fenced()
                    return
                self._state, self.metered = written.state, written.metered
                await self._written(written.seq)
        # What can't be written ends the run's work here and now, and the lease brings it back; whoever waits for the write is told why.
        except Exception as error:
            log.exception("run.write_failed", run_id=str(self._claim.id))
            self._broken = error
            self._on_fenced()
        finally:
            self._pump = None

    def _encoded(self, entry: Entry) -> Entry:
        """With its data as JSON text: what can't be encoded is refused where it comes from, and holds up no later write."""
        text, taken = split_fields(entry.data)
        self._taken.update(taken)
        return msgspec.structs.replace(entry, data=msgspec.Raw(text))

    def _encoded_end(self, end: End) -> End:
        text, taken = split_whole(end.output)
        self._taken.update(taken)
        return msgspec.structs.replace(end, output=msgspec.Raw(text))


class ReplayJournal:
    """Takes nothing: the first thing that would be written ends the replay."""

    def note(self, entry: Entry) -> None:
        raise ReplayEnded(f"{entry.type.value} at step {entry.step} is not in the log")

    def put(self, entry: Entry, *, usage: Usage = NOTHING) -> None:
        self.note(entry)

    @property
    def metered(self) -> bool:
        return False

    async def reserve(self, ask: Ask) -> Grant:
        raise ReplayEnded(f"the model request at step {ask.step} is not in the log")

    async def count_message(self) -> Unsent | None:
        raise ReplayEnded("the message is not in the log")

    def spend(self, spends: Sequence[Spend]) -> None:
        """Whatever a replay does has been paid for."""

    def reach_out(self, what: str) -> None:
        raise ReplayEnded(f"{what} is not in the log")

    async def write(self, *entries: Entry, wait: Wait | None = None, end: End | None = None) -> str:
        for entry in entries:
            self.note(entry)
        return "running"
