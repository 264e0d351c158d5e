"""Says the text of running steps to whoever watches a session, over the bus; pieces are joined for a moment first.

Nothing here is kept: the text can be had again from the log.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import msgspec

from hansa.bus.connection import Bus
from hansa.llm.model import LiveText
from hansa.runs.model import Live

PAUSE = 0.03


class BusVoice:
    """The voice of one run."""

    def __init__(self, bus: Bus, subject: str, run_id: UUID) -> None:
        self._bus = bus
        self._subject = subject
        self._run_id = str(run_id)

    async def wrote(self, last: int) -> None:
        """Tell that the session's log has a new last number."""
        await self._bus.ring(self._subject, msgspec.json.encode(Live(seq=last)))

    @asynccontextmanager
    async def speak(self, step: str) -> AsyncIterator[LiveText]:
        """A place for the text of one step; all of it has been sent when the context ends."""
        text = _StepText()
        pump = asyncio.create_task(self._pump(step, text), name=f"voice {step}")
        try:
            yield text
        finally:
            text.end()
            await pump

    async def _pump(self, step: str, text: "_StepText") -> None:
        while not text.ended.is_set():
            await text.waiting.wait()
            await self._send(step, text)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(text.ended.wait(), PAUSE)
        await self._send(step, text)

    async def _send(self, step: str, text: "_StepText") -> None:
        for live in text.take():
            await self._bus.ring(self._subject, msgspec.json.encode(msgspec.structs.replace(live, run_id=self._run_id, step=step)))


class _StepText:
    """Implements `LiveText`: collects pieces, keeps the order of texts and resets."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.ended = asyncio.Event()
        self._pieces: list[str] = []
        self._reset = False
        self._said = False

    def text(self, piece: str) -> None:
        if piece:
            self._pieces.append(piece)
            self._said = True
            self.waiting.set()

    def reset(self) -> None:
        if self._said:
            self._pieces.clear()
            self._reset, self._said = True, False
            self.waiting.set()

    def end(self) -> None:
        """Say what is left, and no more after it."""
        self.ended.set()
        self.waiting.set()

    def take(self) -> list[Live]:
        self.waiting.clear()
        news = [Live(reset=True)] if self._reset else []
        if self._pieces:
            news.append(Live(text="".join(self._pieces)))
        self._pieces.clear()
        self._reset = False
        return news


class Silence:
    """The voice of a replay: nobody listens."""

    @asynccontextmanager
    async def speak(self, step: str) -> AsyncIterator[LiveText]:
        yield _StepText()
