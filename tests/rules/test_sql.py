"""What is put into SQL by text: constants only. Values travel as parameters."""

import ast
import re
from pathlib import Path

from rules.source_tree import SourceTree, made_up, repository

STATEMENT = re.compile(r"\b(SELECT\s|INSERT INTO\s|UPDATE\s+\S+\s+SET\s|DELETE FROM\s|CREATE\s|ALTER\s|GRANT\s)")


def values_in_sql(tree: SourceTree) -> list[str]:
    """In a module that holds a slice's SQL, only names in capitals (constants of a module) are put into a statement."""
    found: list[str] = []
    for path in tree.product():
        if not path.endswith(("/store.py", "/tables.py")):
            continue
        for node in ast.walk(tree.parsed(path)):
            if isinstance(node, ast.JoinedStr) and STATEMENT.search(ast.unparse(node)):
                put_in = [part.value for part in node.values if isinstance(part, ast.FormattedValue) and not _constant(part.value)]
                found += [f"{path}:{node.lineno}: {ast.unparse(value)} is put into SQL: pass it as $n" for value in put_in]
    return found


def _constant(value: ast.expr) -> bool:
    name = value.attr if isinstance(value, ast.Attribute) else value.id if isinstance(value, ast.Name) else ""
    return bool(name) and name == name.upper()


def test_no_store_puts_a_value_into_sql() -> None:
    assert values_in_sql(repository()) == []


def test_a_value_in_sql_is_found(tmp_path: Path) -> None:
    text = (
        'A = "a, b"\n'
        'fine = f"SELECT {A} FROM hansa.runs WHERE id = $1"\n'
        "bad = f\"SELECT {A} FROM hansa.runs WHERE id = '{run_id}'\"\n"
        'worse = f"DELETE FROM {table()}"\n'
        'told = f"no run {run_id}"\n'
    )
    tree = made_up(tmp_path, {"core/src/hansa/runs/store.py": text, "core/src/hansa/runs/service.py": text})
    assert [line.split(": ")[:2] for line in values_in_sql(tree)] == [
        ["core/src/hansa/runs/store.py:3", "run_id is put into SQL"],
        ["core/src/hansa/runs/store.py:4", "table() is put into SQL"],
    ]
