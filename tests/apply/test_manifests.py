"""Manifests are read with the place of everything in them, and no content of a file can do worse than be refused."""

import json
import os
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.apply.document import MAX_DEPTH, MAX_NODES, Place
from hansa.apply.manifests import MAX_BYTES, Collection, keys_of, parse, read
from hansa.apply.model import ORDER
from hansa.errors import FieldError
from hansa_crds import KINDS
from hansa_crds.problem import Keys, path_of

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\ufeff\u0085\ufffe\uffff"), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12)
DATA = st.dictionaries(TEXTS, VALUES, max_size=5)


class Writer:
    """Writes data as YAML in styles drawn by hypothesis, and notes where each value and key went."""

    def __init__(self, draw: st.DataObject) -> None:
        self._draw = draw
        self._parts: list[str] = []
        self._line, self._column = 1, 1
        self.values: dict[Keys, Place] = {}
        self.names: dict[Keys, Place] = {}

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def put(self, text: str) -> None:
        self._parts.append(text)
        for character in text:
            self._line, self._column = (self._line + 1, 1) if character == "\n" else (self._line, self._column + 1)

    def flow(self, value: Any, keys: Keys, gaps: tuple[str, ...]) -> None:
        self.values[keys] = Place(self._line, self._column)
        if isinstance(value, dict):
            self.put("{")
            for index, (name, inner) in enumerate(cast(dict[str, Any], value).items()):
                self.put("," * bool(index) + self._draw.draw(st.sampled_from(gaps)))
                self.names[*keys, name] = Place(self._line, self._column)
                self.put(json.dumps(name, ensure_ascii=False) + ": ")
                self.flow(inner, (*keys, name), gaps)
            self.put("}")
        elif isinstance(value, list):
            self.put("[")
            for index, inner in enumerate(cast(list[Any], value)):
                self.put("," * bool(index) + self._draw.draw(st.sampled_from(gaps)))
                self.flow(inner, (*keys, index), gaps)
            self.put("]")
        else:
            self.put(json.dumps(value, ensure_ascii=False))

    def block(self, value: dict[str, Any], keys: Keys, indent: int) -> None:
        self.values[keys] = Place(self._line, self._column + indent)
        for name, inner in value.items():
            self.put(" " * indent)
            self.names[*keys, name] = Place(self._line, self._column)
            self.put(json.dumps(name, ensure_ascii=False) + ":")
            if isinstance(inner, dict) and inner and self._draw.draw(st.booleans()):
                self.put("\n")
                self.block(cast(dict[str, Any], inner), (*keys, name), indent + 2)
                continue
            self.put(" " * self._draw.draw(st.integers(1, 3)))
            self.flow(inner, (*keys, name), (" ",))
            self.put("\n")


def only(found: Collection) -> FieldError:
    assert len(found.errors) == 1, found.errors
    return found.errors[0]


def refusal(text: str, *, file: str = "a.yaml") -> tuple[str, int | None, int | None]:
    error = only(parse(text.encode(), file=file))
    assert error.file == file
    return error.code, error.line, error.column


def agent(name: str, **spec: Any) -> str:
    spec = {"instructions": "hi", "model": {"alias": "small"}, **spec}
    return json.dumps({"apiVersion": "hansa.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name}, "spec": spec})


@given(DATA, st.data())
@settings(max_examples=60, deadline=None)
def test_every_value_and_key_of_flow_style_is_found_where_it_stands(data: dict[str, Any], draw: st.DataObject) -> None:
    writer = Writer(draw)
    writer.put("# a comment\n" * draw.draw(st.integers(0, 2)))
    writer.flow(data, (), ("", " ", "\n  ", "\n\n "))
    found = parse(writer.text.encode(), file="a.yaml")
    assert found.errors == ()
    (manifest,) = found.manifests
    assert manifest.value == data
    assert manifest.document.values == writer.values
    assert manifest.document.names == writer.names


@given(DATA.filter(bool), st.data())
@settings(max_examples=60, deadline=None)
def test_every_value_and_key_of_block_style_is_found_where_it_stands(data: dict[str, Any], draw: st.DataObject) -> None:
    writer = Writer(draw)
    writer.put("---\n" * draw.draw(st.integers(0, 1)))
    writer.block(data, (), 0)
    found = parse(writer.text.encode(), file="a.yaml")
    assert found.errors == ()
    (manifest,) = found.manifests
    assert manifest.value == data
    assert manifest.document.values == writer.values
    assert manifest.document.names == writer.names


@given(data=DATA, escaped=st.booleans(), indent=st.sampled_from([None, 1, "\t"]))
@settings(max_examples=50, deadline=None)
def test_json_is_read_as_json_reads_it(*, data: dict[str, Any], escaped: bool, indent: int | str | None) -> None:
    found = parse(json.dumps(data, ensure_ascii=escaped, indent=indent).encode(), file="a.json")
    assert found.errors == ()
    assert [manifest.value for manifest in found.manifests] == [data]


@given(st.binary(max_size=200) | st.text("{}[]:,-&*!|>'\"%@`?#\n \tab01<~.\x00\x85\ufeff\u2028é🙂", max_size=120).map(str.encode))
@settings(max_examples=400, deadline=None)
def test_no_content_makes_anything_but_manifests_and_errors_with_their_places(content: bytes) -> None:
    for file in ("a.yaml", "a.json"):
        found = parse(content, file=file)
        for error in found.errors:
            assert error.file == file
            assert error.line is not None
            assert error.line >= 1
            assert error.column is not None
            assert error.column >= 1
        for manifest in found.manifests:
            manifest.check()


@given(st.lists(TEXTS | st.integers(0, 999), min_size=1, max_size=6))
def test_a_written_path_leads_back_to_its_keys(keys: list[str | int]) -> None:
    # Longer keys are cut for people, and no longer lead anywhere.
    assert keys_of(path_of(tuple(keys))) == tuple(keys) or any("?" in str(key) or not str(key).isprintable() for key in keys)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", ("duplicate", 3, 1)),
        ("a: {b: 1, b: 2}\n", ("duplicate", 1, 11)),
        ('a: 1\n"a": 2\n', ("duplicate", 2, 1)),
        ("a:\n\tb: 1\n", ("tab", 2, 1)),
        ("a: 1\n  b: 2\n", ("syntax", 2, 4)),
        ("a: [1, 2\n", ("syntax", 2, 1)),
        ("a: b\x01c\n", ("character", 1, 5)),
        ("x: &a {b: *a}\n", ("alias", 1, 11)),
        ("x: *nowhere\n", ("alias", 1, 4)),
        ("base: &b {c: 1}\nx:\n  <<: *b\n", ("merge", 3, 3)),
        ("a: !!python/object/apply:os.system [x]\n", ("tag", 1, 4)),
        ("a: !custom 1\n", ("tag", 1, 4)),
        ("a: !!int x\n", ("type", 1, 4)),
        ("1: a\n", ("type", 1, 1)),
        ("? [a, b]\n: c\n", ("type", 1, 3)),
        ("a: 9223372036854775808\n", ("range", 1, 4)),
        (f"a: {'9' * 5000}\n", ("range", 1, 4)),
        ("a: .inf\n", ("range", 1, 4)),
        ("a: 1e999\n", ("range", 1, 4)),
        ("- a\n- b\n", ("type", 1, 1)),
        ("just text\n", ("type", 1, 1)),
    ],
)
def test_what_can_not_be_used_is_refused_at_its_place(text: str, expected: tuple[str, int, int]) -> None:
    assert refusal(text) == expected


def test_half_a_surrogate_pair_in_json_is_refused_and_a_whole_one_is_read() -> None:
    assert refusal('{"a": "\\ud83d"}', file="a.json") == ("unicode", 1, 7)
    assert parse(b'{"a": "\\ud83d\\ude00"}', file="a.json").manifests[0].value == {"a": "\N{GRINNING FACE}"}


def test_a_byte_that_is_not_utf_8_is_named_with_its_offset_and_place() -> None:
    error = only(parse("a: 1\nb: é".encode("latin-1"), file="a.yaml"))
    assert (error.code, error.line, error.column) == ("encoding", 2, 4)
    assert "0xe9 at offset 8" in error.message


def test_words_that_yaml_1_1_took_for_something_else_are_text() -> None:
    found = parse(b"a: no\nb: on\nc: 2026-01-01\nd: 010\ne: 1_000\nf: 0x1F\ng: ~\nh: !!str 1\ni: 1:30\n", file="a.yaml")
    expected = {"a": "no", "b": "on", "c": "2026-01-01", "d": 10, "e": "1_000", "f": 31, "g": None, "h": "1", "i": "1:30"}
    assert found.manifests[0].value == expected


def test_a_byte_order_mark_and_windows_line_ends_move_no_place() -> None:
    (manifest,) = parse("\ufeffkind: Agent\r\nmetadata:\r\n  name: x\r\n".encode(), file="a.yaml").manifests
    assert manifest.document.locate(("metadata", "name")) == Place(3, 9)


def test_aliases_are_expanded_and_a_bomb_of_them_is_refused() -> None:
    (manifest,) = parse(b"a: &a {b: [1, 2]}\nc: *a\n", file="a.yaml").manifests
    assert manifest.value == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}}
    # What is wrong inside an expanded alias is shown at the alias.
    assert manifest.document.locate(("c", "b", 0)) == Place(2, 1)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    error = only(parse("\n".join(lines).encode(), file="a.yaml"))
    assert error.code == "size"
    assert str(MAX_NODES) in error.message


def test_nesting_beyond_the_limit_is_refused_and_never_exhausts_the_stack() -> None:
    assert only(parse(b"a: " + b"[" * 200_000, file="a.yaml")).code in {"depth", "syntax"}
    assert only(parse(b"[" * 200_000, file="a.json")).code in {"depth", "syntax"}
    deep = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert parse(f"a: {deep}".encode(), file="a.yaml").errors == ()
    assert only(parse(f"a: [{deep}]".encode(), file="a.yaml")).code == "depth"


def test_a_flaw_costs_its_document_and_a_syntax_error_what_follows_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"{agent('one')}\n---\nb: 1\nb: 2\n---\n{agent('two')}\n")
    (tmp_path / "b.yaml").write_text(f"{agent('three')}\n---\na: [\n---\n{agent('five')}\n")
    (tmp_path / "c.yaml").write_text(agent("four"))
    found = read([tmp_path])
    assert [manifest.name for manifest in found.manifests] == ["one", "two", "three", "four"]
    assert [(Path(error.file or "").name, error.code) for error in found.errors] == [("a.yaml", "duplicate"), ("b.yaml", "syntax")]


def test_two_documents_of_one_name_are_both_left_out_and_each_names_the_other(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(f"{agent('twin')}\n---\n{agent('other')}\n")
    second.write_text("apiVersion: hansa.dev/v1alpha1\nkind: Agent\nmetadata:\n  name: twin\n")
    found = read([first, second])
    assert [manifest.name for manifest in found.manifests] == ["other"]
    column = agent("twin").index('"twin"') + 1
    assert [(error.code, error.file, error.line, error.column) for error in found.errors] == [
        ("twin", str(first), 1, column),
        ("twin", str(second), 4, 9),
    ]
    assert f"{second}:4:9" in found.errors[0].message
    assert f"{first}:1:{column}" in found.errors[1].message


def test_one_name_in_two_kinds_or_namespaces_is_no_twin(tmp_path: Path) -> None:
    head = "apiVersion: hansa.dev/v1alpha1\n"
    documents = [f"{head}kind: {kind}\nmetadata: {{name: x, namespace: {space}}}\n" for kind in ("Agent", "ToolServer") for space in "ab"]
    (tmp_path / "a.yaml").write_text("---\n".join(documents))
    found = read([tmp_path])
    assert found.errors == ()
    assert len(found.manifests) == 4


def test_what_others_refer_to_comes_first(tmp_path: Path) -> None:
    kinds = ["Unheard", "Agent", "ToolServer", "ModelProvider", "Tenant", "Region"]
    (tmp_path / "a.yaml").write_text("---\n".join(f"kind: {kind}\nmetadata: {{name: x}}\n" for kind in kinds))
    assert [manifest.kind for manifest in read([tmp_path]).manifests] == [*ORDER, "Unheard"]
    assert set(ORDER) == set(KINDS)


def test_folders_are_read_in_order_and_sub_folders_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.yml", "a.json", "c.yaml", "deep/d.yaml", "note.txt"):
        (tmp_path / name).write_text(agent(name[0]) if name != "note.txt" else "not: [yaml")
    assert [manifest.name for manifest in read([tmp_path]).manifests] == ["a", "b", "c"]
    deep = read([tmp_path, tmp_path / "a.json"], recursive=True)
    assert [manifest.name for manifest in deep.manifests] == ["a", "b", "c", "d"]
    assert deep.errors == ()


def test_a_path_that_can_not_be_read_is_named_and_stops_nothing(tmp_path: Path) -> None:
    good, large, empty = tmp_path / "good.yaml", tmp_path / "large.yaml", tmp_path / "empty"
    good.write_text(agent("good"))
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    empty.mkdir()
    found = read([tmp_path / "missing.yaml", large, empty, Path("/dev/zero"), good])
    assert [manifest.name for manifest in found.manifests] == ["good"]
    assert {error.code for error in found.errors} == {"missing", "unreadable", "empty"}
    assert str(MAX_BYTES) in next(error.message for error in found.errors if error.file == str(large))


def test_a_pipe_in_a_folder_is_left_out_and_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "good.yaml").write_text(agent("good"))
    found = read([tmp_path])
    assert [manifest.name for manifest in found.manifests] == ["good"]
    assert (only(found).code, only(found).file) == ("unreadable", str(tmp_path / "pipe.yaml"))


def test_a_wrong_field_is_shown_at_its_key_and_a_wrong_value_at_its_value() -> None:
    spec = "spec:\n  modle: {alias: small}\n  instructions: hi\n  limits:\n    turns: many\n"
    text = f"apiVersion: hansa.dev/v1alpha1\nkind: Agent\nmetadata: {{name: x}}\n{spec}"
    errors = parse(text.encode(), file="x.yaml").manifests[0].check()
    places = {error.path: (error.line, error.column) for error in errors}
    assert places["spec.modle"] == (5, 3)
    assert places["spec.limits.turns"] == (8, 12)
    assert "`model`" in str(next(error.suggestion for error in errors if error.path == "spec.modle"))


def test_the_place_of_what_is_missing_is_that_of_what_it_is_missing_in() -> None:
    text = "apiVersion: hansa.dev/v1alpha1\nkind: Agent\nmetadata: {name: x}\nspec:\n  model: {alias: small}\n"
    (error,) = parse(text.encode(), file="x.yaml").manifests[0].check()
    assert (error.path, error.line, error.column) == ("spec.instructions", 4, 1)


def test_two_thousand_documents_of_one_file_are_all_read() -> None:
    text = "---\n".join(f"{agent(f'agent-{number}')}\n" for number in range(2000))
    assert [manifest.name for manifest in parse(text.encode(), file="a.yaml").manifests] == [f"agent-{number}" for number in range(2000)]
