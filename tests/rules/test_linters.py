"""The linters are switched on: each rule of ours that a linter enforces is broken once, under the repository's own settings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rules.source_tree import ROOT

BROKEN = {
    "PLC0415": "def f():\n    import json\n    return json\n",
    "TID251": "from __future__ import annotations\n",
    "TID252": "from . import a\n",
    "FIX002": "x = 1  # TO" + "DO later\n",
    "ERA001": "# x = compute(1)\n",
    "PLR0913": "def f(a, b, c, d, e, g, h): ...\n",
    "PLR0915": "def f():\n" + "    x = 1\n" * 51 + "    return x\n",
    "T201": "print(1)\n",
    "S608": 'def f(name):\n    return f"SELECT * FROM {name}"\n',
    "DTZ005": "import datetime\n\nx = datetime.datetime.now()\n",
    "ASYNC251": "import time\n\n\nasync def f():\n    time.sleep(1)\n",
    "PGH004": "x = 1  # noqa\n",
    "FBT001": "def f(a: bool): ...\n",
    "B904": "try:\n    x = 1\nexcept ValueError:\n    raise KeyError()\n",
    "E501": "x = '" + "a" * 140 + "'\n",
}


def codes(path: Path) -> set[str]:
    """Codes of what ruff finds in a file that lies somewhere else, judged as a module of core."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=json", "--config", str(ROOT / "pyproject.toml")]
    command += ["--stdin-filename", str(ROOT / "core/src/hansa/made_up.py"), "-"]
    ended = subprocess.run(command, input=path.read_text(), capture_output=True, text=True, check=False, cwd=ROOT)
    return {str(found["code"]) for found in json.loads(ended.stdout)}


@pytest.mark.parametrize("code", sorted(BROKEN))
def test_ruff_refuses(code: str, tmp_path: Path) -> None:
    (tmp_path / "made_up.py").write_text(BROKEN[code])
    assert code in codes(tmp_path / "made_up.py")


@pytest.mark.parametrize("line", ["from typing import TYPE_CHECKING", "from unittest.mock import MagicMock", "import urllib.request"])
def test_ruff_refuses_what_is_banned_here(line: str, tmp_path: Path) -> None:
    (tmp_path / "made_up.py").write_text(f"{line}\n")
    assert "TID251" in codes(tmp_path / "made_up.py")


def test_pyright_is_strict_here(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text().replace('venv = ".venv"\n', ""))
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/made_up.py").write_text("def untyped(a):  # type: ignore\n    return a\n")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--project", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    found = json.loads(ended.stdout)["generalDiagnostics"]
    assert "reportMissingParameterType" in {diagnostic.get("rule") for diagnostic in found}


@pytest.mark.parametrize("jobs", ["0", "2"])
def test_a_skipped_test_fails_the_run(tmp_path: Path, jobs: str) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "conftest.py").read_text())
    (tmp_path / "test_a.py").write_text("import pytest\n\n\ndef test_a():\n    pytest.skip('later')\n\n\ndef test_b():\n    assert True\n")
    # Without the plugins that are installed here, but for the one that divides the work: importing them takes seconds of a core.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-n", jobs, "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ended = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert ended.returncode == 1
    assert "test_a.py::test_a: skipped" in ended.stdout
