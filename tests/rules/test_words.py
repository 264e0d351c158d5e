"""Words that no file of this repository holds, and words that some must."""

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from rules.source_tree import ROOT, SourceTree, made_up, repository

SUBJECTS = "core/src/hansa/bus/subjects.py"
NOTES_TO_SELF = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
REGISTRIES = re.compile(
    r"(?<![\w-])(pypi\.(org|io)|pythonhosted\.org|registry\.(npmjs\.org|yarnpkg\.com)|(proxy|sum)\.golang\.org|--(extra-)?index[-]url|--find[-]links)\b"
)
HOMES = re.compile(r"(?<![\w.])/(home|Users|root)/[\w.-]+")
BROAD = frozenset({"Exception", "BaseException"})


def notes_to_self(tree: SourceTree) -> list[str]:
    """No note that something is still to be done: what nobody owns is never done."""
    return _lines(tree, NOTES_TO_SELF, "do it, or write it where work is kept")


def registries(tree: SourceTree) -> list[str]:
    """No address of a package index: each machine has its own."""
    return _lines(tree, REGISTRIES, "an address of a package index belongs to the machine")


def places_of_one_machine(tree: SourceTree) -> list[str]:
    """No path that exists on one machine only: a home directory, or the place of this very checkout."""
    here = re.compile(rf"(?<![\w.]){re.escape(str(ROOT))}\b|(?<![\w.]){re.escape(str(Path.home()))}/")
    return _lines(tree, HOMES, "a path of one machine") + _lines(tree, here, "the path of this checkout")


def uncommented_broad_excepts(tree: SourceTree) -> list[str]:
    """Whoever catches everything and goes on says why, on the line of the `except`, just above or just under it."""
    found: list[str] = []
    for path in tree.python():
        lines = tree.text(path).splitlines()
        for node in ast.walk(tree.parsed(path)):
            if isinstance(node, ast.ExceptHandler) and _is_broad(node.type):
                last = node.body[-1]
                goes_on = not (isinstance(last, ast.Raise) and last.exc is None)
                around = lines[node.lineno - 1 : node.body[0].lineno]
                above = lines[node.lineno - 2].lstrip().startswith("#")
                if goes_on and not above and not any("#" in line for line in around):
                    found.append(f"{path}:{node.lineno}: a broad except without a comment that says why")
    return found


def subjects_outside_their_module(tree: SourceTree) -> list[str]:
    """A NATS subject is written in `hansa.bus.subjects` and nowhere else."""
    if SUBJECTS not in tree.paths:
        return [f"{SUBJECTS}:1: missing"]
    texts = [_template(node) for node in ast.walk(tree.parsed(SUBJECTS)) if isinstance(node, ast.JoinedStr)]
    nouns = sorted({text.split(".")[2] for text in texts if text.startswith("hansa.{}.")})
    subject = re.compile(rf"^hansa\.[^.\s]+\.({'|'.join(map(re.escape, nouns))})(\.|$)")
    found: list[str] = []
    for path in tree.product():
        if path == SUBJECTS:
            continue
        for node in ast.walk(tree.parsed(path)):
            if isinstance(node, ast.JoinedStr | ast.Constant) and subject.match(_template(node)):
                found.append(f"{path}:{node.lineno}: a subject: write it in {SUBJECTS}")
    return found


def patched_parts(tree: SourceTree) -> list[str]:
    """A test replaces none of our parts: `monkeypatch` is for the environment and the current folder."""
    forbidden = re.compile(r"\bmonkeypatch\.(setattr|delattr|setitem)\b")
    return _lines(SourceTree(tree.root, tuple(path for path in tree.python() if path.startswith("tests/"))), forbidden, "a patched part")


def _lines(tree: SourceTree, pattern: re.Pattern[str], why: str) -> list[str]:
    found: list[str] = []
    for path in tree.paths:
        for number, line in enumerate(tree.text(path).splitlines(), start=1):
            match = pattern.search(line)
            if match:
                found.append(f"{path}:{number}: {match.group()!r}: {why}")
    return found


def _is_broad(kind: ast.expr | None) -> bool:
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(each is None or ast.unparse(each) in BROAD for each in kinds)


def _template(node: ast.JoinedStr | ast.Constant) -> str:
    """A string with `{}` where something is put in; empty for a constant that is no string."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "{}" for part in node.values)


RULES = (notes_to_self, registries, places_of_one_machine, uncommented_broad_excepts, subjects_outside_their_module, patched_parts)


@pytest.mark.parametrize("rule", RULES)
def test_the_words_of_this_repository_obey(rule: Callable[[SourceTree], list[str]]) -> None:
    assert rule(repository()) == []


def test_a_note_to_self_is_found(tmp_path: Path) -> None:
    tree = made_up(tmp_path, {"docs/a.md": "fine\nTO" + "DO: later\n"})
    assert [line.split(":")[:2] for line in notes_to_self(tree)] == [["docs/a.md", "2"]]


def test_an_address_of_a_package_index_is_found(tmp_path: Path) -> None:
    options = {"a.txt": "--index" + "-url https://example.org\n", "b.sh": "pip install --extra" + "-index-url=x y\n"}
    hosts = {"c.toml": "# https://pypi" + ".org/simple\n", "d.md": "pip looks at the index that is configured\n"}
    assert [line.split(":")[0] for line in registries(made_up(tmp_path, options | hosts))] == ["a.txt", "b.sh", "c.toml"]


def test_a_path_of_one_machine_is_found(tmp_path: Path) -> None:
    files = {"a.py": 'x = "/home' + '/ada/hansa"\n', "b.py": f'x = "{ROOT}/core"\n', "c.py": 'x = "https://example.org/home/ada"\n'}
    found = places_of_one_machine(made_up(tmp_path, files))
    assert {line.split(":")[0] for line in found} == {"a.py", "b.py"}


@pytest.mark.parametrize("head", ["except Exception:", "except BaseException as e:", "except:", "except (ValueError, Exception):"])
def test_a_broad_except_without_a_reason_is_found(tmp_path: Path, head: str) -> None:
    files = {
        "mute.py": f"try:\n    x = 1\n{head}\n    pass\n",
        "above.py": f"try:\n    x = 1\n# a plugin may raise anything\n{head}\n    pass\n",
        "said.py": f"try:\n    x = 1\n{head}\n    # a plugin may raise anything\n    pass\n",
        "passed_on.py": f"try:\n    x = 1\n{head}\n    x = 2\n    raise\n",
        "narrow.py": "try:\n    x = 1\nexcept ValueError:\n    pass\n",
    }
    assert [line.split(":")[:2] for line in uncommented_broad_excepts(made_up(tmp_path, files))] == [["mute.py", "3"]]


def test_a_subject_written_elsewhere_is_found(tmp_path: Path) -> None:
    subjects = 'def ready(region: str) -> str:\n    return f"hansa.{region}.runs.ready"\n'
    other = 'A = f"hansa.{region}.runs.ready"\nB = "hansa.local.runs.cancel"\nC = "hansa.db.migrations"\nD = "hansa.runs"\n'
    tree = made_up(tmp_path, {SUBJECTS: subjects, "core/src/hansa/runs/service.py": other})
    assert [line.split(":")[1] for line in subjects_outside_their_module(tree)] == ["1", "2"]


def test_a_tree_without_the_subjects_module_is_found(tmp_path: Path) -> None:
    assert subjects_outside_their_module(made_up(tmp_path, {"a.py": ""})) == [f"{SUBJECTS}:1: missing"]


def test_a_patched_part_is_found(tmp_path: Path) -> None:
    text = "def test_a(monkeypatch):\n    monkeypatch" + ".setattr(a, 'b', 1)\n    monkeypatch.setenv('A', 'b')\n"
    assert [line.split(":")[:2] for line in patched_parts(made_up(tmp_path, {"tests/test_a.py": text}))] == [["tests/test_a.py", "2"]]
