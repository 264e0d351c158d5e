"""Names and sizes of modules and functions, where no linter looks."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from rules.source_tree import SourceTree, made_up, repository

LONGEST_MODULE = 399
POSITIONAL = 4
NAMES_OF_NOTHING = frozenset({"base", "common", "core", "helper", "helpers", "manager", "misc", "util", "utils"})


def long_modules(tree: SourceTree) -> list[str]:
    """A module stays below 400 lines."""
    counted = ((path, len(tree.text(path).splitlines())) for path in tree.python())
    return [f"{path}:{lines}: more than {LONGEST_MODULE} lines: divide it by subject" for path, lines in counted if lines > LONGEST_MODULE]


def names_of_nothing(tree: SourceTree) -> list[str]:
    """No module or package is called after nothing; `core/`, the distribution, is called so by its place at the top."""
    found: list[str] = []
    for path in tree.python():
        parts = PurePosixPath(path).with_suffix("").parts
        found += [f"{path}:1: {part!r} says nothing of what is inside" for part in parts[1:] if part in NAMES_OF_NOTHING]
    return found


def packages_at_the_top(tree: SourceTree) -> list[str]:
    """No `__init__.py` in a top folder: with one, `operator/` would shadow the standard library."""
    return [
        f"{path}:1: a top folder is no package"
        for path in tree.paths
        if PurePosixPath(path).match("*/__init__.py") and path.count("/") == 1
    ]


def silent_modules(tree: SourceTree) -> list[str]:
    """Every module opens with what it is for."""
    return [f"{path}:1: no docstring" for path in tree.python() if not ast.get_docstring(tree.parsed(path))]


def positional_crowds(tree: SourceTree) -> list[str]:
    """A public function takes four parameters by position at most: a call with five bare values is a riddle.

    Dunder methods, and methods of a class that derives from another, have their shape from elsewhere.
    """
    found: list[str] = []
    for path in tree.product():
        for node, derived in _public_functions(tree.parsed(path)):
            names = [argument.arg for argument in [*node.args.posonlyargs, *node.args.args]]
            own = names[1:] if names[:1] in (["self"], ["cls"]) else names
            if len(own) > POSITIONAL and (node.name == "__init__" or not derived):
                found.append(f"{path}:{node.lineno}: {node.name}({', '.join(own)}): put `*` after {own[POSITIONAL - 1]!r} or before")
    return found


def _public_functions(module: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Functions of a module and of its classes; with each, whether its class derives from another."""
    for owner in [module, *(node for node in module.body if isinstance(node, ast.ClassDef))]:
        derived = isinstance(owner, ast.ClassDef) and bool(owner.bases)
        for node in owner.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.name == "__init__" or not node.name.startswith("_")):
                yield node, derived


@pytest.mark.parametrize("rule", [long_modules, names_of_nothing, packages_at_the_top, silent_modules, positional_crowds])
def test_the_modules_of_this_repository_obey(rule: Callable[[SourceTree], list[str]]) -> None:
    assert rule(repository()) == []


def test_a_module_of_400_lines_is_found(tmp_path: Path) -> None:
    tree = made_up(tmp_path, {"core/src/hansa/long.py": "x = 1\n" * 400, "core/src/hansa/short.py": "x = 1\n" * 399})
    assert [line.split(":")[:2] for line in long_modules(tree)] == [["core/src/hansa/long.py", "400"]]


def test_a_name_of_nothing_is_found(tmp_path: Path) -> None:
    tree = made_up(tmp_path, {"core/src/hansa/utils.py": "", "core/src/hansa/common/a.py": "", "core/src/hansa/runs.py": ""})
    assert [line.split(":")[0] for line in names_of_nothing(tree)] == ["core/src/hansa/common/a.py", "core/src/hansa/utils.py"]


def test_a_package_at_the_top_is_found(tmp_path: Path) -> None:
    tree = made_up(tmp_path, {"operator/__init__.py": "", "core/src/hansa/__init__.py": ""})
    assert [line.split(":")[0] for line in packages_at_the_top(tree)] == ["operator/__init__.py"]


def test_a_module_without_docstring_is_found(tmp_path: Path) -> None:
    tree = made_up(tmp_path, {"core/src/hansa/mute.py": "x = 1\n", "core/src/hansa/said.py": '"""What it is for."""\n'})
    assert [line.split(":")[0] for line in silent_modules(tree)] == ["core/src/hansa/mute.py"]


def test_a_fifth_positional_parameter_is_found(tmp_path: Path) -> None:
    text = "class A:\n    def four(self, a, b, c, d, *, e): ...\n    def five(self, a, b, c, d, e): ...\n"
    given = "    def __exit__(self, a, b, c, d, e): ...\nclass B(A):\n    def six(self, a, b, c, d, e, f): ...\n"
    tree = made_up(tmp_path, {"core/src/hansa/a.py": text + given, "tests/test_a.py": "def five(a, b, c, d, e): ...\n"})
    assert [line.split(":")[:2] for line in positional_crowds(tree)] == [["core/src/hansa/a.py", "3"]]
