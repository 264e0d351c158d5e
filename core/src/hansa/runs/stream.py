"""A session's log as a live stream: every event once and in order, whatever replica or connection it comes through.

The log in the database is what is sent; the bus only says when to look, and carries pieces of text that are in no log. Without
the bus a look each second finds the same.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec

from hansa.auth.model import Principal
from hansa.bus.subjects import session_live
from hansa.runs import store
from hansa.runs.equipment import Equipment
from hansa.runs.log.showing import Kind, shown
from hansa.runs.model import FINAL_EVENTS, EventType, Live

PAGE = 200
LOOK_SECONDS = 1.0
QUEUE = 10_000


class Sent(msgspec.Struct, frozen=True):
    """One thing to send: a log event (`seq` > 0), or live text or a reset (`seq` 0). `data` is JSON text."""

    seq: int
    type: str
    data: str


class Reading(msgspec.Struct, frozen=True):
    """What is read: a session's events after a number, to the final event of run `until` or for ever.

    `over`: that run had ended before; its final event may stand before `after`, and no other will come.
    """

    session_id: UUID
    after: int = 0
    until: UUID | None = None
    over: bool = False


async def follow(equipment: Equipment, principal: Principal, reading: Reading) -> AsyncIterator[Sent | None]:
    """Yield what stands in the log, then what comes, live; None for each second of silence."""
    news: asyncio.Queue[Live] = asyncio.Queue(QUEUE)

    async def heard(payload: bytes) -> None:
        # A reader slower than the run loses pieces of text, never events: those are read from the log.
        if not news.full():
            news.put_nowait(msgspec.json.decode(payload, type=Live))

    async with equipment.bus.listen(session_live(equipment.region, principal.tenant_id, reading.session_id), heard):
        last = reading.after
        while True:
            rows = await store.list_events(equipment.database, principal.tenant_id, reading.session_id, after=last, limit=PAGE)
            bodies = await shown(equipment.values, principal.tenant_id, Kind.EVENT, [row["body"] for row in rows])
            for row, body in zip(rows, bodies, strict=True):
                last = row["seq"]
                yield Sent(last, row["type"], body)
                if reading.until is not None and row["run_id"] == reading.until and _rests(row, rows[-1]):
                    return
            if len(rows) == PAGE:
                continue
            if reading.over:
                return
            async for live in _until_written(news, last):
                yield live


def _rests(row: Any, newest: Any) -> bool:
    """Whether a run does nothing more after this event: it has ended, or needs a person, who has not come yet."""
    return row["type"] in FINAL_EVENTS or (row["type"] == EventType.RUN_NEEDS_REVIEW and row["seq"] == newest["seq"])


async def _until_written(news: asyncio.Queue[Live], last: int) -> AsyncIterator[Sent | None]:
    """Live text until the log has something new, or a second is over."""
    while True:
        try:
            live = await asyncio.wait_for(news.get(), LOOK_SECONDS)
        except TimeoutError:
            yield None
            return
        if live.seq > last:
            return
        if live.reset:
            yield Sent(0, "delta.reset", msgspec.json.encode({"run_id": live.run_id, "step": live.step}).decode())
        elif live.text:
            yield Sent(0, "delta", msgspec.json.encode({"run_id": live.run_id, "step": live.step, "text": live.text}).decode())
