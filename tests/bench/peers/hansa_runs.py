"""Hansa as a participant: the service of runs and a worker in one process, with everything on that is on in production.

Row-level security, effects (each of the two steps is a tool call with an intent before and a result after), leases, and live
events over NATS. A run is `heard` when its client has learned from the bus that it has ended, and `followed` when its client
has read the whole log live.
"""

import os

import uvloop

from bench.closed_loop import obey
from bench.engine import open_engine, principal
from hansa.process import settle
from hansa.settings import load

AT_ONCE = 64
TWO_STEPS = {"steps": 2}


async def main() -> None:
    async with open_engine(load(os.environ)) as engine:
        caller = principal()
        await engine.apply(caller)
        settle()  # as a worker does
        async with engine.working(concurrency=AT_ONCE):
            end = await engine.followed(caller, "counted", TWO_STEPS)

            async def heard() -> None:
                await engine.heard(caller, "counted", TWO_STEPS, end=end)

            async def followed() -> None:
                assert await engine.followed(caller, "counted", TWO_STEPS) == end

            await obey({"heard": heard, "followed": followed})


uvloop.run(main())
