"""A tree of files as the rules see it: the repository's own, or a broken one that a test makes up to see its rule fail.

A rule is a function from a tree to the list of its violations, each as `path:line: what is wrong`.
"""

import ast
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class SourceTree:
    """Files under `root`, by path relative to it, in order."""

    root: Path
    paths: tuple[str, ...]

    def text(self, path: str) -> str:
        """A file's text; bytes that are no UTF-8 come out as replacement characters."""
        return (self.root / path).read_text(encoding="utf-8", errors="replace")

    def python(self) -> tuple[str, ...]:
        """Every Python module."""
        return tuple(path for path in self.paths if path.endswith(".py"))

    def product(self) -> tuple[str, ...]:
        """The Python modules that are shipped."""
        return tuple(path for path in self.python() if "/src/" in path and not path.startswith("docs/"))

    def parsed(self, path: str) -> ast.Module:
        """A module's syntax tree."""
        return _parsed(self.text(path), path)


@cache
def _parsed(text: str, path: str) -> ast.Module:
    return ast.parse(text, filename=path)


def repository() -> SourceTree:
    """What is in Git, or would be after `git add .`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return SourceTree(ROOT, tuple(sorted(path for path in set(listed.split("\0")) if path and (ROOT / path).is_file())))


def made_up(root: Path, files: Mapping[str, str]) -> SourceTree:
    """A tree written for one test."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return SourceTree(root, tuple(sorted(PurePosixPath(path).as_posix() for path in files)))
