"""The example of docs/examples: a distribution from outside the workspace is installed with pip and found by its entry point."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "docs/examples/hansa-dice"

LOOK = """
import json
from importlib.metadata import entry_points

(point,) = [point for point in entry_points(group="hansa.plugins") if point.name == "dice"]
plugin = point.load()
(tool,) = plugin.hansa_tools()
print(json.dumps({
    "file": plugin.__file__, "distribution": point.dist.name, "api": plugin.HANSA_API_VERSION,
    "tool": tool.name, "effect": tool.effect, "properties": sorted(tool.parameters["properties"]),
}))
"""

ROLL = """
import asyncio, json, sys
import msgspec
from hansa_dice.plugin import roll_dice

arguments = msgspec.convert(json.loads(sys.argv[1]), roll_dice.arguments)
print(json.dumps(asyncio.run(roll_dice.run(None, arguments))))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the example, and nothing else."""
    target = tmp_path_factory.mktemp("site")
    # A copy is built: building in place could leave files in the repository.
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / EXAMPLE.name)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--target", str(target), str(source)]
    subprocess.run(command, check=True, timeout=50)
    return target


def python(site: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program that sees the packages of a folder besides our own."""
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)


def answer(ended: subprocess.CompletedProcess[str]) -> Any:
    """The JSON that a program printed."""
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_an_installed_stranger_is_found_by_its_entry_point(installed: Path) -> None:
    found = answer(python(installed, LOOK))
    assert found.pop("file").startswith(str(installed))
    assert found == {"distribution": "hansa-dice", "api": 1, "tool": "roll_dice", "effect": "read", "properties": ["count", "sides"]}


def test_a_stranger_that_is_not_installed_is_not_found(tmp_path: Path) -> None:
    assert python(tmp_path, LOOK).returncode != 0


def test_the_tool_of_a_stranger_rolls_as_many_dice_as_it_is_asked_for(installed: Path) -> None:
    rolled = answer(python(installed, ROLL, '{"count": 40, "sides": 4}'))
    assert len(rolled["rolled"]) == 40
    assert set(rolled["rolled"]) <= {1, 2, 3, 4}
    assert rolled["sum"] == sum(rolled["rolled"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ('{"sides": 7}', "there is no die with 7 sides"),
        ('{"count": 0}', "Expected `int` >= 1"),
        ('{"dice": 2}', "Object contains unknown field `dice`"),
    ],
)
def test_the_tool_of_a_stranger_refuses(installed: Path, arguments: str, reason: str) -> None:
    ended = python(installed, ROLL, arguments)
    assert ended.returncode != 0
    assert reason in ended.stderr
