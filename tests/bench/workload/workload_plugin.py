"""A plugin for benches: a runtime that calls a tool a number of times, and tools whose own work is nothing or a sleep.

The tool is `keyed`, so an intent is written before each call and a result after it. Found through the folder
`workload-0.1.dist-info` beside it, by processes that have this folder on PYTHONPATH.
"""

import asyncio
import time
from typing import Any

from hansa_sdk import RunContext, Runtime, Tool, ToolContext, hookimpl, tool

HANSA_API_VERSION = 1


@tool(effect="keyed")
async def workload_double(context: ToolContext, *, number: int, seconds: float = 0.0, size: int = 0) -> int | str:
    """Double a number, in some time; with `size`, write it out in about so many bytes."""
    if seconds:
        await asyncio.sleep(seconds)
    return number * 2 if not size else f"{number * 2} ".ljust(size, ".")


class Steps:
    """Calls the tool as often as the input says, {"steps": 2, "seconds": 0.0}; the output is how many milliseconds each call took.

    The clock is read for the figure alone: what the run does does not depend on it, but its output does, so it can't be replayed
    to the byte. `counted` is the same with the number of steps as output.
    """

    name = "steps"

    async def run(self, context: RunContext) -> Any:
        spent: list[float] = []
        for number in range(context.input["steps"]):
            begin = time.perf_counter()
            await context.tool("workload_double", {"number": number, "seconds": context.input.get("seconds", 0.0)})
            spent.append((time.perf_counter() - begin) * 1000)
        return spent


class Counted:
    """Calls the tool as often as the input says, one after the other; `size` is of each answer, in bytes."""

    name = "counted"

    async def run(self, context: RunContext) -> Any:
        for number in range(context.input["steps"]):
            arguments = {"number": number, "seconds": context.input.get("seconds", 0.0), "size": context.input.get("size", 0)}
            await context.tool("workload_double", arguments)
        return context.input["steps"]


@hookimpl
def hansa_tools() -> list[Tool]:
    return [workload_double]


@hookimpl
def hansa_runtimes() -> list[Runtime]:
    return [Steps(), Counted()]
