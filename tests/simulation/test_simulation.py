"""Ten thousand worlds of workers, each another order of things: nothing is lost, doubled or stuck in any, and each control is found out."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from simulation.coverage import OF_WORLDS
from simulation.database import BROKEN
from simulation.explore import Crew, Explored, open_crew, play

WORLDS = 10_000
CAUGHT_WITHIN = 1_000
"""Worlds in which each control must be found out at least once."""
REPEAT = "make simulate SEED={} WORLDS=1"


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with open_crew() as found:
        yield found


@pytest.mark.alone
@pytest.mark.timeout(300)
def test_in_no_world_is_anything_lost_doubled_or_stuck(crew: Crew) -> None:
    explored = Explored()
    for explored in crew.explore(range(WORLDS)):
        told = [f"{REPEAT.format(seed)}: {'; '.join(found)}" for seed, found in explored.failing.items()]
        assert not told, "\n".join(told)
    assert explored.worlds == WORLDS
    assert [name for name in OF_WORLDS if name not in explored.seen] == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize("broken", [*BROKEN, "nointent"])
def test_an_engine_that_lacks_a_rule_is_found_out(crew: Crew, broken: str) -> None:
    assert any(explored.failing for explored in crew.explore(range(CAUGHT_WITHIN), broken=broken, chunk=10))


def test_a_seed_gives_the_same_world_in_every_process() -> None:
    code = "from simulation.explore import play; print(play(range(20)).digest)"
    tests = str(Path(__file__).parent.parent)

    def digest(hash_seed: str) -> str:
        environment = {"PYTHONPATH": tests, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip().splitlines()[-1]

    assert digest("1") == digest("2")
    assert play(range(20)).digest != play(range(1, 21)).digest


def test_the_program_says_which_seeds_are_wrong() -> None:
    command = [sys.executable, "-m", "simulation", "--worlds", "200", "--control", "nofence"]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    told = msgspec.json.decode(done.stdout.splitlines()[-1])
    assert (done.returncode, told["worlds"]) == (1, 200)
    assert all(f"seed {seed}: " in done.stdout for seed in told["seeds"])
