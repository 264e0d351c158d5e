"""The promises hold while everything is hurt, and the harness finds a defect that was put in.

What this machine can't do (a disk whose plug is pulled needs root) is said in the answer; as root all of it is promised.
"""

import os

import pytest

from chaos.storm import Plan, soak


@pytest.mark.timeout(180)
async def test_nothing_is_lost_doubled_stuck_or_reordered_while_everything_is_hurt() -> None:
    outcome = await soak(Plan(seconds=20, seed=1))
    assert outcome.violations == []
    line = outcome.line
    assert line["ok"], line
    assert line["faults_total"] >= 20, line
    assert len(line["faults"]) >= 10, line
    assert line["runs"] >= 30, line
    if os.geteuid() == 0:
        assert line["unavailable"] == {}, "root can do all of it: something is not installed"


@pytest.mark.timeout(180)
async def test_without_the_fence_the_harness_sees_the_harm() -> None:
    outcome = await soak(Plan(seconds=20, seed=5, control="nofence"))
    assert not outcome.line["ok"]
    assert {violation.kind for violation in outcome.violations} & {"doubled", "reordered", "lost"}
