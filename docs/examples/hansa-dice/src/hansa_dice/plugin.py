"""What Hansa finds by the entry point: the version of the hooks this plugin is made for, and the tools it brings.

Imports nothing of Hansa but its SDK.
"""

import secrets
from typing import Annotated

from msgspec import Meta

from hansa_sdk import Tool, ToolContext, ToolFailed, hookimpl, tool

HANSA_API_VERSION = 1
SIDES = (4, 6, 8, 10, 12, 20, 100)


@tool(effect="read", timeout=5.0)
async def roll_dice(
    context: ToolContext,
    *,
    count: Annotated[int, Meta(ge=1, le=100, description="How many dice.")] = 1,
    sides: Annotated[int, Meta(description="How many sides each has: 4, 6, 8, 10, 12, 20 or 100.")] = 6,
) -> dict[str, list[int] | int]:
    """Roll dice and give each result and their sum.

    Raises `ToolFailed` for a die that does not exist.
    """
    if sides not in SIDES:
        raise ToolFailed(f"there is no die with {sides} sides", hint=f"Dice have {', '.join(map(str, SIDES))} sides.")
    rolled = [secrets.randbelow(sides) + 1 for _ in range(count)]
    return {"rolled": rolled, "sum": sum(rolled)}


@hookimpl
def hansa_tools() -> list[Tool]:
    """The tools of this plugin."""
    return [roll_dice]
