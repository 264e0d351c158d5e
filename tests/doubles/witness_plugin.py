"""A plugin for tests: tools of every effect that tell a file what they do, one that kills its worker, and odd runtimes.

Found through the folder `witness-0.1.dist-info` beside it, by processes that have this folder on PYTHONPATH. The file is an
append-only list of JSON lines; one write each, so that lines of several processes stay whole.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from typing import Any

from hansa_sdk import CallFailed, RunContext, RunFailed, Runtime, Tool, ToolContext, WaitExpired, hookimpl, tool

HANSA_API_VERSION = 1


def _tell(context: ToolContext, phase: str, *, effect: str, mark: str) -> None:
    line = {"phase": phase, "effect": effect, "key": context.idempotency_key, "mark": mark, "pid": os.getpid()}
    with open(context.settings["witness"], "ab", buffering=0) as file:
        file.write(json.dumps(line).encode() + b"\n")


async def _act(context: ToolContext, effect: str, *, mark: str, seconds: float, rest: float) -> str:
    """Say that it begins, take some time, do the effect, rest: a kill can fall on either side of it."""
    _tell(context, "begin", effect=effect, mark=mark)
    await asyncio.sleep(seconds)
    _tell(context, "effect", effect=effect, mark=mark)
    await asyncio.sleep(rest)
    return mark


@tool(effect="read")
async def witness_read(context: ToolContext, *, mark: str, seconds: float = 0.0, rest: float = 0.0) -> str:
    """Look."""
    return await _act(context, "read", mark=mark, seconds=seconds, rest=rest)


@tool(effect="idempotent")
async def witness_idempotent(context: ToolContext, *, mark: str, seconds: float = 0.0, rest: float = 0.0) -> str:
    """Set."""
    return await _act(context, "idempotent", mark=mark, seconds=seconds, rest=rest)


@tool(effect="keyed")
async def witness_keyed(context: ToolContext, *, mark: str, seconds: float = 0.0, rest: float = 0.0) -> str:
    """Pay, under a key."""
    return await _act(context, "keyed", mark=mark, seconds=seconds, rest=rest)


@tool(effect="unsafe")
async def witness_unsafe(context: ToolContext, *, mark: str, seconds: float = 0.0, rest: float = 0.0) -> str:
    """Pay."""
    return await _act(context, "unsafe", mark=mark, seconds=seconds, rest=rest)


@tool(effect="keyed")
async def witness_deadly(context: ToolContext, *, mark: str) -> str:
    """Kill the worker."""
    _tell(context, "begin", effect="keyed", mark=mark)
    os.kill(os.getpid(), signal.SIGKILL)
    return mark


class Fan:
    """Calls tools in branches side by side. Config: `calls`, a list of [tool, mark, seconds]."""

    name = "fan"

    async def run(self, context: RunContext) -> Any:
        async def branch(name: str, mark: str, seconds: float) -> Any:
            await asyncio.sleep(seconds)
            context.log(f"branch {mark}")
            outcome = await context.tool(name, {"mark": mark, "seconds": seconds})
            return [outcome.content, str(context.uuid())]

        return await context.gather(*(branch(*call) for call in context.agent.runtime_config["calls"]))


class Fickle:
    """Does something else in each process that has another HANSA_TOOL_FICKLE."""

    name = "fickle"

    async def run(self, context: RunContext) -> Any:
        wish = os.environ.get("HANSA_TOOL_FICKLE", "")
        await context.tool("witness_read", {"mark": "first" + (wish if context.input == "other first call" else "")})
        if context.input == "other first call":
            await context.wait_event("go")
        if context.input == "other end":
            return wish
        if context.input == "fewer steps" and wish:
            return "end"
        if context.input == "other error" and wish:
            raise RunFailed("now this", code="now")
        if context.input == "other error":
            raise RunFailed("then that", code="then")
        if context.input == "other kind of step" and wish:
            return context.random()
        await context.tool("witness_read", {"mark": "second" + (wish if context.input == "other call" else "")})
        return "end"


class Broken:
    """Breaks as its input says."""

    name = "broken"

    async def run(self, context: RunContext) -> Any:
        if context.input == "not json":
            return object()
        if context.input == "surrogate":
            context.log("\ud800")
        if context.input == "raise":
            raise LookupError("gone")
        return {"one": (2, 3)}


async def _stubbornly(seconds: float) -> str:
    """Let time go by, whatever is said meanwhile."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.1)
    return "done with"


class Steps:
    """Does what its input lists, one after the other: ["sleep", seconds], ["ask", question], ["event", name, seconds], ["publish", name,
    data], ["call", agent, input], ["tool", name, mark, seconds], ["values"], ["stubborn", seconds], ["gather", steps, steps ...]. Its
    output is the list of what they gave.
    """

    name = "steps"

    async def run(self, context: RunContext) -> Any:
        return await self._all(context, context.input)

    async def _all(self, context: RunContext, steps: list[Any]) -> list[Any]:
        return [await self._one(context, *step) for step in steps]

    async def _one(self, context: RunContext, word: str, *more: Any) -> Any:
        try:
            match word:
                case "sleep":
                    await context.sleep(more[0])
                    return "slept"
                case "ask":
                    return await context.ask(more[0])
                case "event":
                    return await context.wait_event(more[0], seconds=more[1])
                case "publish":
                    await context.publish(more[0], more[1])
                    return "published"
                case "call":
                    return await context.call(more[0], more[1])
                case "tool":
                    outcome = await context.tool(more[0], {"mark": more[1], "seconds": more[2]})
                    return f"failed: {outcome.content}" if outcome.is_error else outcome.content
                case "values":
                    context.log("drawn")
                    return [context.now().isoformat(), str(context.uuid()), context.random()]
                case "stubborn":
                    return await _stubbornly(more[0])
                case _:
                    return await context.gather(*(self._all(context, branch) for branch in more))
        except (CallFailed, WaitExpired) as error:
            return f"{error.code}: {error.detail}"


@hookimpl
def hansa_tools() -> list[Tool]:
    return [witness_read, witness_idempotent, witness_keyed, witness_unsafe, witness_deadly]


@hookimpl
def hansa_runtimes() -> list[Runtime]:
    return [Fan(), Fickle(), Broken(), Steps()]
