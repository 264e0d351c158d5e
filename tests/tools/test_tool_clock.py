"""The clock tells the platform's time in a zone, and opens no file but a zone's."""

import msgspec
import pytest

from hansa_sdk import Effect, ToolFailed
from hansa_tools.clock import clock
from tools.conftest import Context


async def test_the_time_is_told_in_the_zone(context: Context) -> None:
    told = await context.run(clock, zone="Europe/Berlin")
    assert told == {"zone": "Europe/Berlin", "time": "2026-03-29T01:30:00+01:00", "weekday": "Sunday", "abbreviation": "CET"}


async def test_without_a_zone_it_is_utc(context: Context) -> None:
    assert (await context.run(clock))["time"] == "2026-03-29T00:30:00+00:00"


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus", "../../../etc/passwd", "/etc/localtime", "Europe", "Europe/Berlin\0", "tzdata.zi", "\ud800"]
)
async def test_an_unknown_zone_is_refused(context: Context, zone: str) -> None:
    with pytest.raises(ToolFailed, match="there is no time zone"):
        await context.run(clock, zone=zone)


async def test_a_mistyped_zone_is_answered_with_the_near_one(context: Context) -> None:
    with pytest.raises(ToolFailed) as refused:
        await context.run(clock, zone="europe/berlin")
    assert "Europe/Berlin" in refused.value.hint


async def test_bounds_hold_and_the_effect_is_read(context: Context) -> None:
    assert clock.effect is Effect.READ
    with pytest.raises(msgspec.ValidationError):
        await context.run(clock, zone="x" * 65)
