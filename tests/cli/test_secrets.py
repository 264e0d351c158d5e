"""`hansa secrets` against a real platform: values come by stdin or file and are shown nowhere."""

import secrets as randomness
from pathlib import Path

import pytest

from cli.command import hansa
from cli.test_access import Person
from stack import Process, Stack

CANARY = f"canary-{randomness.token_hex(16)}"


@pytest.fixture
def admin(stack: Stack, control_plane: Process, tmp_path: Path) -> Person:
    return Person(control_plane, stack.key, tmp_path)


def test_a_value_is_read_from_stdin_or_a_file_and_shown_nowhere(admin: Person, control_plane: Process, stack: Stack) -> None:
    env = {"HANSA_URL": control_plane.url, "HANSA_API_KEY": stack.key}
    first = hansa("secrets", "set", "typed", cwd=admin.place, stdin=f"{CANARY}\n", **env)
    (admin.place / "value").write_text(f"{CANARY} of a file\n")
    second = admin.types("secrets", "set", "typed", "--file", "value")
    assert (first.status, first.err) == (0, "secret typed set, version 1\n")
    assert (second.status, second.err) == (0, "secret typed set, version 2\n")
    shown = [admin.types("secrets"), admin.types("secrets", "show", "typed"), admin.types("secrets", "list", "--output", "json")]
    assert all("typed" in ended.out for ended in shown)
    assert CANARY not in "".join(ended.out + ended.err for ended in [first, second, *shown])


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "told"),
    [
        (("short",), "abc", 65, "shorter than 8"),
        (("both", "--file", "x", "--source", "folder", "--path", "a"), "", 2, "give --file, or --source with --path"),
        (("half", "--source", "folder"), "", 2, "give --file, or --source with --path"),
        (("gone", "--file", "not-there"), "", 2, "not-there can't be read"),
        (("Upper",), "long enough", 65, "lower-case"),
        (("an", "argument"), "", 2, "argument"),
    ],
)
def test_what_can_t_be_set_is_refused_by_name(
    admin: Person, control_plane: Process, stack: Stack, arguments: tuple[str, ...], stdin: str, status: int, told: str
) -> None:
    env = {"HANSA_URL": control_plane.url, "HANSA_API_KEY": stack.key}
    ended = hansa("secrets", "set", *arguments, cwd=admin.place, stdin=stdin, **env)
    assert (ended.status, told in ended.err) == (status, True), ended.err


def test_keys_are_rotated_and_progress_is_told(admin: Person) -> None:
    (admin.place / "value").write_text(CANARY)
    assert admin.types("secrets", "set", "rotated", "--file", "value").status == 0
    before = admin.sees("secrets", "status")["generation"]
    ended = admin.types("secrets", "rotate")
    assert ended.status == 0, ended.err
    assert f"generation {before + 1}: all " in ended.err
    again = admin.sees("secrets", "rotate", "--generation", str(before + 1))
    assert (again["generation"], again["left"], again["finished"]) == (before + 1, 0, True)
    assert "wraps" in admin.types("secrets", "rewrap").err
    assert admin.types("secrets", "delete", "rotated").err == "secret rotated deleted\n"
    assert admin.types("secrets", "delete", "rotated").status == 66
