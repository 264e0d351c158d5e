"""The tool `clock`: what time it is somewhere. The time is the platform's, so that a test or a replay can hold it."""

import difflib
import zoneinfo
from typing import Annotated

from msgspec import Meta

from hansa_sdk import ToolContext, ToolFailed, tool

Zone = Annotated[str, Meta(min_length=1, max_length=64, description="A zone of the IANA database, such as `Europe/Lisbon`.")]


@tool(effect="read", timeout=10.0)
async def clock(context: ToolContext, *, zone: Zone = "UTC") -> dict[str, str]:
    """Tell the current date, time and weekday in a time zone."""
    here = context.now().astimezone(_zone(zone))
    return {"zone": zone, "time": here.isoformat(timespec="seconds"), "weekday": here.strftime("%A"), "abbreviation": here.tzname() or ""}


def _zone(name: str) -> zoneinfo.ZoneInfo:
    # Asked first, since ZoneInfo opens whatever file of the zone folder it is told.
    known = zoneinfo.available_timezones()
    if name in known:
        return zoneinfo.ZoneInfo(name)
    lowered = {zone.lower(): zone for zone in known}
    near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3)]
    hint = f"Did you mean {' or '.join(near)}?" if near else "Use a name such as Europe/Lisbon or UTC."
    raise ToolFailed(f"there is no time zone {name!r}", hint=hint)
