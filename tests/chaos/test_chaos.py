"""The promises hold while everything is hurt, and the harness finds a defect that was put in.

What this machine can't do (a disk whose plug is pulled needs root) is said in the answer; as root all of it is promised.
"""

import os
import shutil

import pytest

from chaos.storm import Plan, soak
from runs.engine import LEASE


@pytest.mark.alone
@pytest.mark.timeout(180)
async def test_nothing_is_lost_doubled_stuck_or_reordered_while_everything_is_hurt() -> None:
    outcome = await soak(Plan(seconds=60, seed=1))
    assert outcome.violations == []
    line = outcome.line
    # The bound of `make chaos` is lease + 1 s; here another program may share the machine.
    assert line["resumes"] >= 5, line
    assert line["resume_p95"] <= 2 * (LEASE + 1), line
    assert line["faults_total"] >= 50, line
    assert len(line["faults"]) >= 10, line
    assert line["runs"] >= 10, line
    if os.geteuid() == 0:
        assert line["unavailable"] == {}, "root can do all of it: something is not installed"


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("control", "kind", "told"),
    [("nofence", "doubled", " has 2 times "), ("nointent", "doubled", "unsafe call"), ("lazyack", "stuck", "family")],
)
async def test_a_defect_that_was_put_in_is_found(control: str, kind: str, told: str) -> None:
    outcome = await soak(Plan(seconds=15, seed=5, control=control), forked=True)
    assert not outcome.line["ok"]
    shutil.rmtree(outcome.line["folder"])
    assert [each for each in outcome.violations if each.kind == kind and told in each.told], outcome
