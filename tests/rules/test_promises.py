"""The page on the security model: each promise names a test or a command that is there."""

import re

from rules.source_tree import ROOT

PAGE = ROOT / "docs/security-model.md"
TABLE = re.compile(r"^\| promise \| by \| shown by \|\n\|[ -|]+\|\n((?:\|.*\|\n)+)", re.MULTILINE)


def unproven(page: str) -> list[str]:
    """What is promised and shown by nothing, or by something that is not there."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    found: list[str] = []
    for table in TABLE.finditer(page):
        for row in table[1].splitlines():
            promise, _, shown = (cell.strip() for cell in row.strip("|").rsplit("|", 2))
            proofs = re.findall(r"`([^`]+)`", shown)
            if not proofs:
                found.append(f"{promise}: nothing shows it")
            for proof in proofs:
                there = proof[5:] in targets if proof.startswith("make ") else (ROOT / proof).exists()
                if not there:
                    found.append(f"{promise}: {proof} is not there")
    return found


def test_every_promise_of_the_security_model_is_shown_by_something() -> None:
    page = PAGE.read_text()
    assert unproven(page) == []
    assert len(TABLE.findall(page)) >= 4


def test_a_promise_that_nothing_shows_is_found() -> None:
    head = "| promise | by | shown by |\n| --- | --- | --- |\n"
    rows = "| one | x | |\n| two | x | `tests/nowhere.py` |\n| three | x | `make nothing` |\n| four | x | `make test`, `tests/rules` |\n"
    assert unproven(head + rows) == [
        "one: nothing shows it",
        "two: tests/nowhere.py is not there",
        "three: make nothing is not there",
    ]
