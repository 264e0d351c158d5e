"""How a simulated process reaches the model database and the bus: the real interfaces, over a line that loses and delays.

The real `store` modules are used: what they ask for in SQL is answered by the model's function of that name.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import cache
from random import Random
from typing import Any
from uuid import UUID

from hansa.bus.connection import Bus, Handler
from hansa.db.pool import Database
from hansa.errors import Unavailable
from simulation.database import ModelDatabase
from simulation.loop import Process, VirtualLoop
from simulation.tables import BEGIN

FUNCTION = re.compile(r"hansa\.(\w+)\((.*)\)")
ARGUMENT = re.compile(r"\$(\d+)|'([^']*)'")
LATENCY = (0.0, 0.001, 0.003, 0.02)


def instant(seconds: float) -> datetime:
    """A moment of a world, as the engine sees it."""
    return BEGIN + timedelta(seconds=seconds)


class Weather:
    """What the lines are like now. `over`: the world has ended, and nobody reaches anything."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.random: Random = loop.random
        self.stormy = False
        self.away_until = 0.0
        self.over = False

    @property
    def away(self) -> bool:
        return self.loop.time() < self.away_until

    def new_id(self) -> UUID:
        return UUID(int=self.random.getrandbits(128))

    def delay(self) -> float:
        return LATENCY[int(self.random.random() * len(LATENCY))]

    def bad(self, chance: float) -> bool:
        return self.stormy and self.random.random() < chance


def ask(model: ModelDatabase, sql: str, arguments: tuple[Any, ...]) -> Any:
    """What the model answers to a statement: rows, or a single value."""
    function, places = _parsed(sql)
    if sql.startswith("SELECT type, step, data FROM hansa.events"):
        _, run, steps, types = arguments
        return [
            {"type": event.type, "step": event.step, "data": event.data}
            for event in model.runs[run].events
            if event.step in steps and event.type in types
        ]
    if sql.startswith("SELECT digest, body FROM hansa.values"):
        return [(digest, model.values[digest]) for digest in arguments[0] if digest in model.values]
    if not function:
        return []  # sweeping what is old
    if function == "log_partitions_make":
        return [(0,)]
    return getattr(model, function)(*(arguments[place] if isinstance(place, int) else place for place in places))


@cache
def _parsed(sql: str) -> tuple[str, tuple[int | str, ...]]:
    """The function that is called, and its arguments: the number of one that is given, or a text that stands in the statement."""
    found = FUNCTION.search(sql)
    if found is None:
        return "", ()
    return found[1], tuple(int(each[1]) - 1 if each[1] else each[2] for each in ARGUMENT.finditer(found[2]))


class Line:
    """One connection: each statement by itself. Without `weather` it is the database's own, and never fails."""

    def __init__(self, model: ModelDatabase, weather: Weather | None = None) -> None:
        self._model = model
        self._weather = weather

    async def answer(self, sql: str, arguments: tuple[Any, ...]) -> Any:
        weather = self._weather
        if weather is None:
            return ask(self._model, sql, arguments)
        if weather.over:
            raise asyncio.CancelledError
        await asyncio.sleep(weather.delay())
        if weather.away or weather.bad(0.03):
            await asyncio.sleep(0.05)
            self._model.seen["the database is away"] += 1
            raise Unavailable("the model database is away")
        if weather.over:
            raise asyncio.CancelledError
        found = ask(self._model, sql, arguments)
        if weather.bad(0.5):
            await asyncio.sleep(weather.delay())
        if weather.bad(0.04):
            self._model.seen[f"an answer is lost: {_parsed(sql)[0]}"] += 1
            raise Unavailable("the answer is lost")
        return found

    async def fetch(self, sql: str, *arguments: Any) -> Any:
        return await self.answer(sql, arguments)

    async def fetchrow(self, sql: str, *arguments: Any) -> Any:
        return next(iter(await self.answer(sql, arguments)), None)

    async def fetchval(self, sql: str, *arguments: Any) -> Any:
        return await self.answer(sql, arguments)


class LinkedDatabase(Database):
    """The real interface, over a line."""

    def __init__(self, line: Line) -> None:
        self._line = line

    @asynccontextmanager
    async def tenant(self, tenant_id: UUID) -> AsyncIterator[Any]:
        yield self._line

    async def call(self, sql: str, *arguments: Any) -> Any:
        return await self._line.fetchval(sql, *arguments)

    async def call_row(self, sql: str, *arguments: Any) -> Any:
        return await self._line.fetchrow(sql, *arguments)

    async def call_rows(self, sql: str, *arguments: Any) -> Any:
        return await self._line.fetch(sql, *arguments)

    async def system(self, sql: str, *arguments: Any) -> Any:
        return await self._line.fetch(sql, *arguments)


class Doorbells:
    """What is rung is heard by each listener that lives, later, or not at all."""

    def __init__(self, weather: Weather) -> None:
        self._weather = weather
        self._listeners: dict[str, list[tuple[Process, Handler]]] = {}

    def ring(self, subject: str, payload: bytes) -> None:
        loop, weather = self._weather.loop, self._weather
        for process, handler in self._listeners.get(subject, ()):
            if not process.dead and not weather.bad(0.5):
                delay = weather.random.choice((0.0, 0.001, 0.02))
                loop.call_later(delay, self._heard, process, handler, payload, context=loop.outside)

    def _heard(self, process: Process, handler: Handler, payload: bytes) -> None:
        if not process.dead and not self._weather.over:
            self._weather.loop.spawn(process, _hear(handler, payload), "bell")

    def listen(self, subject: str, listener: tuple[Process, Handler]) -> Callable[[], None]:
        """Returns what ends it."""
        listeners = self._listeners.setdefault(subject, [])
        listeners.append(listener)
        return lambda: listeners.remove(listener)


async def _hear(handler: Handler, payload: bytes) -> None:
    await handler(payload)


class LinkedBus(Bus):
    """The real interface, over the doorbells."""

    def __init__(self, bells: Doorbells, process: Process) -> None:
        self._bells = bells
        self._process = process

    @property
    def connected(self) -> bool:
        return True

    async def ring(self, subject: str, payload: bytes = b"") -> None:
        self._bells.ring(subject, payload)

    @asynccontextmanager
    async def listen(self, subject: str, handler: Handler) -> AsyncIterator[None]:
        end = self._bells.listen(subject, (self._process, handler))
        try:
            yield
        finally:
            end()
