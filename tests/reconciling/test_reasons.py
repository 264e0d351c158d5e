"""Every reason that the operator gives is documented, and every one that is documented is given."""

import ast
from collections.abc import Iterable

from hansa_crds.conditions import REPORTED
from rules.source_tree import ROOT

SOURCE = ROOT / "operator/src/hansa_operator"
ELSEWHERE = frozenset({"NamespacesMade", "NamespaceNotMade"})
"""Given through a condition of the kind's own, which has its place in `CONDITIONS`."""


def texts(sources: Iterable[str]) -> set[str]:
    """All constant texts of modules."""
    found = (node for source in sources for node in ast.walk(ast.parse(source)))
    return {node.value for node in found if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def given(sources: Iterable[str]) -> set[str]:
    """The second argument of each Verdict, and whatever is put into a variable `reason` or a table of reasons."""
    found: set[str] = set()
    for node in (each for source in sources for each in ast.walk(ast.parse(source))):
        match node:
            case ast.Call(func=ast.Name(id="Verdict"), args=[_, ast.Constant(value=str(reason)), *_]):
                found.add(reason)
            case ast.Assign(targets=[ast.Name(id="reason")], value=value) | ast.AnnAssign(target=ast.Name(id="STALLED"), value=value):
                parts = ast.walk(value) if value is not None else ()
                found |= {str(each.value) for each in parts if isinstance(each, ast.Constant) and str(each.value)[:1].isupper()}
            case _:
                pass
    return found


def test_every_reason_is_documented_and_given() -> None:
    sources = [path.read_text() for path in SOURCE.glob("*.py")]
    assert given(sources) - REPORTED.keys() == set()
    assert REPORTED.keys() - texts(sources) - ELSEWHERE == set()
    assert len(given(sources)) > 8


def test_a_reason_that_nobody_documents_is_found() -> None:
    assert given(['Verdict("False", "NoSuchReason", "m")', 'reason = "Other" if x else "Third"']) == {"NoSuchReason", "Other", "Third"}
