"""Functions and views of the schema stand in one place, and each change of them has a number."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pytest

import definitions
from hansa.db.defining import EDITION, TOPICS, Definitions, read, read_from
from rules.source_tree import SourceTree, made_up, repository

FOLDER = "core/src/hansa/db/definitions"
VERSIONS = "core/src/hansa/db/migrations/versions"
LONGEST = 399
WRITTEN_ONCE = ("0001", "0002", "0003")
"""Revisions from before there was a place for functions."""
ADMITTED = re.compile(r"CREATE OR REPLACE (FUNCTION|VIEW|TRIGGER) |(REVOKE|GRANT) .* ON |COMMENT ON (FUNCTION|VIEW) ")
MAKES = re.compile(
    r"\bCREATE\s+(OR\s+REPLACE\s+)?((TEMP|TEMPORARY|RECURSIVE|MATERIALIZED)\s+)*(FUNCTION|PROCEDURE|AGGREGATE|VIEW)\b", re.IGNORECASE
)
DROPS = re.compile(r"\bDROP\s+(FUNCTION|VIEW)\s+(?!IF\s+EXISTS\b)", re.IGNORECASE)


def misplaced(tree: SourceTree) -> list[str]:
    """Revisions make no functions and no views. They drop those that are no more, also where these never were: in a new database they
    come after all revisions."""
    found: list[str] = []
    for path in tree.paths:
        if not path.startswith(f"{VERSIONS}/") or PurePosixPath(path).name.startswith(WRITTEN_ONCE):
            continue
        for number, line in enumerate(tree.text(path).splitlines(), 1):
            code = line.partition("--")[0]
            if MAKES.search(code):
                found.append(f"{path}:{number}: a revision makes no function and no view: it stands in {FOLDER}/")
            if DROPS.search(code):
                found.append(f"{path}:{number}: IF EXISTS is missing: in a new database it never was")
    return found


def unread(tree: SourceTree) -> list[str]:
    """Each file is a topic in `TOPICS`, of fewer than 400 lines."""
    files = {path: PurePosixPath(path) for path in tree.paths if path.startswith(f"{FOLDER}/") and path.endswith(".sql")}
    found = [f"{path}:1: is not in TOPICS of hansa.db.defining" for path, parts in files.items() if parts.stem not in TOPICS]
    return found + [f"{path}:{lines}: divide it by subject" for path in files if (lines := len(tree.text(path).splitlines())) > LONGEST]


def inadmissible(found: Definitions) -> list[str]:
    """Statements that can't be said again and again, or that make tables."""
    return [f"{each.place()}: {each.text[:40]!r}" for each in found.statements() if not ADMITTED.match(each.text)]


def written(folder: Path, texts: Mapping[str, str], edition: str) -> Definitions:
    for topic in TOPICS:
        (folder / f"{topic}.sql").write_text(texts.get(topic, ""))
    (folder / EDITION).write_text(edition)
    return read_from(folder)


def test_revisions_make_no_functions() -> None:
    assert misplaced(repository()) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("CREATE FUNCTION hansa.f() RETURNS integer", 1),
        ("create or replace  function hansa.f()", 1),
        ("    op.execute('CREATE OR REPLACE VIEW hansa.v AS SELECT 1')", 1),
        ("CREATE MATERIALIZED VIEW hansa.v AS SELECT 1;", 1),
        ("DROP FUNCTION hansa.f(uuid);", 1),
        ("DROP FUNCTION IF EXISTS hansa.f(uuid);", 0),
        ("CREATE TABLE hansa.t (id uuid);  -- as the function of CREATE FUNCTION hansa.f has it", 0),
    ],
)
def test_a_function_in_a_revision_is_found(tmp_path: Path, line: str, found: int) -> None:
    files = {f"{VERSIONS}/{revision}_a.sql": f"-- A.\n{line}\n" for revision in ("0003", "0004")}
    assert [each.split(": ")[0] for each in misplaced(made_up(tmp_path, files))] == [f"{VERSIONS}/0004_a.sql:2"] * found


def test_every_file_of_definitions_is_read_and_short() -> None:
    tree = repository()
    assert unread(tree) == []
    assert {f"{FOLDER}/{topic}.sql" for topic in TOPICS} <= set(tree.paths)


def test_a_file_that_nobody_reads_and_a_long_one_are_found(tmp_path: Path) -> None:
    tree = made_up(tmp_path, {f"{FOLDER}/more.sql": "", f"{FOLDER}/log.sql": "\n" * 400})
    assert unread(tree) == [f"{FOLDER}/more.sql:1: is not in TOPICS of hansa.db.defining", f"{FOLDER}/log.sql:400: divide it by subject"]


def test_definitions_can_be_brought_again_and_again() -> None:
    assert inadmissible(read()) == []


def test_what_can_not_be_is_found_at_its_line(tmp_path: Path) -> None:
    fine = "-- A; 'b.\nCREATE OR REPLACE FUNCTION hansa.f() RETURNS text LANGUAGE sql AS $$ SELECT '; $ -- ' $$;\n"
    found = written(
        tmp_path, {"log": f"{fine}\n-- B.\nCREATE FUNCTION hansa.g() AS $b$ $$; $b$;\n{fine}INSERT INTO hansa.t VALUES (';')"}, "1 -"
    )
    assert len(list(found.statements())) == 4
    assert inadmissible(found) == [
        "definitions/log.sql:5: 'CREATE FUNCTION hansa.g() AS $b$ $$; $b$'",
        "definitions/log.sql:8: \"INSERT INTO hansa.t VALUES (';')\"",
    ]


def test_the_edition_has_a_number_of_its_own() -> None:
    assert definitions.numbered(definitions.FOLDER) == (definitions.FOLDER / EDITION).read_text(), "run `make generate`"


def test_another_text_is_another_edition(tmp_path: Path) -> None:
    first = written(tmp_path, {"log": "-- A."}, "7 -")
    assert definitions.numbered(tmp_path) == f"8 {first.digest}\n"
    assert written(tmp_path, {"log": "-- A."}, f"8 {first.digest}").digest == first.digest
    assert definitions.numbered(tmp_path) == f"8 {first.digest}\n"
    second = written(tmp_path, {"values": "-- A."}, f"8 {first.digest}")
    assert definitions.numbered(tmp_path) == f"9 {second.digest}\n"
    assert second.digest != first.digest
