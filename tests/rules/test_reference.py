"""Generated files are what a fresh run makes, and what they are made from is documented whole."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import reference
from rules.source_tree import ROOT, made_up

TYPE = re.compile(r"[A-Z][A-Za-z]+(Ready|Verified)|Accepted|ResolvedRefs|Compatible|Reachable")
ERRORS = '''"""Errors."""

class Trouble(Exception):
    """Root."""

    code, status, retryable = "trouble", 500, False

class Late(Trouble):
    """It came
    too late."""

    code = "late"

class Unnamed(Late):
    """Inherits its code."""

class Other(Exception):
    """Without a code: not part of a tree."""
'''
SETTINGS = '''"""Settings."""

class PlaceSettings(msgspec.Struct):
    """Where."""

    region: Annotated[str, env("HANSA_REGION")] = "local"
    """Name of the
    region."""
    mute: Annotated[int, env("HANSA_MUTE")] = 3
    plain: int = 4
    """No variable."""
'''


def made_up_root(tmp_path: Path) -> Path:
    """A workspace with one error tree and one group of settings."""
    return made_up(tmp_path, {"core/src/hansa/errors.py": ERRORS, "core/src/hansa/settings.py": SETTINGS}).root


def undocumented_settings(root: Path) -> list[str]:
    """Settings without a docstring, and variables that two fields read."""
    settings = reference.settings(root)
    variables = [setting.variable for setting in settings]
    twice = sorted({variable for variable in variables if variables.count(variable) > 1})
    return [f"{setting.variable}: no docstring" for setting in settings if not setting.text] + [f"{each}: read twice" for each in twice]


def undocumented_errors(root: Path) -> list[str]:
    """Errors of the trees without a docstring."""
    return [f"{error.module}.{error.name}: no docstring" for error in reference.error_classes(root) if not error.text]


def test_the_reference_pages_are_fresh() -> None:
    assert reference.stale(ROOT) == []


def test_the_generated_definitions_are_fresh() -> None:
    command = [sys.executable, "-m", "hansa_crds.generate", "--check"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_setting_is_documented() -> None:
    assert len(reference.settings(ROOT)) > 0
    assert undocumented_settings(ROOT) == []


def test_every_error_is_documented() -> None:
    assert {"internal", "plugin_error"} <= {error.facts["code"] for error in reference.error_classes(ROOT)}
    assert undocumented_errors(ROOT) == []


def test_every_code_stands_on_the_page() -> None:
    page = (ROOT / "docs/reference/errors.md").read_text()
    codes = {str(error.facts["code"]) for error in reference.error_classes(ROOT)} | {reason.code for reason in reference.reasons(ROOT)}
    codes |= {code for code, _ in reference.http_codes(ROOT)}
    assert "method_not_allowed" in codes
    assert sorted(code for code in codes if f"| `{code}` |" not in page) == []


def test_the_variables_of_the_command_line_and_of_tools_stand_on_the_page() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text()
    for variable in ("HANSA_URL", "HANSA_API_KEY", "HANSA_CREDENTIALS_ALLOW", "HANSA_TOOL_GIT_REPOSITORIES"):
        assert f"| `{variable}` |" in page
    assert [setting.variable for setting in reference.tool_settings(ROOT) if not setting.text] == []


def test_a_setting_of_a_tool_and_a_code_of_the_api_are_found(tmp_path: Path) -> None:
    root = made_up_root(tmp_path)
    made_up(
        root,
        {"plugins/tools/src/hansa_tools/a.py": '"""A."""\nSETTING = "a_b"\n', "core/src/hansa/server/problem.py": "CODES = {418: 'tea'}\n"},
    )
    assert [(setting.variable, setting.text) for setting in reference.tool_settings(root)] == [("HANSA_TOOL_A_B", "")]
    assert reference.http_codes(root) == [("tea", 418)]
    assert "| `tea` | 418 |" in reference.errors_page(root)


def said(tree: ast.Module) -> set[tuple[str, str]]:
    """Conditions that a module says, by type and reason: calls whose arguments hold both as texts, one after the other or with a status
    between them.
    """
    found = set[tuple[str, str]]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            texts = [str(each.value) if isinstance(each, ast.Constant) else "" for each in node.args]
            words = [each for each in texts if each not in ("True", "False", "Unknown")]
            if len(words) > 1 and words[:1] == texts[:1] and TYPE.fullmatch(words[0]):
                found.add((words[0], words[1]))
    return found


def undocumented_conditions(root: Path) -> list[str]:
    """What stands in a condition and not on its page, and what stands there and nobody says. `_ready` says its own type by itself."""
    kinds = reference.conditions(root)
    known = {(type_, reason) for types in kinds.values() for type_, reasons in types.items() for reason in reasons if reason}
    real = {pair for _, tree in reference.modules(root) for pair in said(tree)}
    own = {pair for pair in known if pair[0] == "Ready"}
    page = (root / "docs/reference/conditions.md").read_text()
    missing = [f"{type_}: {reason} is not documented" for type_, reason in sorted(real - known)]
    unsaid = [f"{type_}: {reason} is said by nobody" for type_, reason in sorted(known - real - own)]
    types = [(type_, reasons) for each in kinds.values() for type_, reasons in each.items()]
    empty = [f"{type_}: no meaning" for type_, reasons in types if not all(reasons.values()) or "" not in reasons]
    return [*missing, *unsaid, *empty, *(f"{type_}: not on the page" for type_, _ in types if f"### {type_}\n" not in page)]


def test_every_condition_and_reason_is_documented_and_said() -> None:
    assert {"DatabaseReady", "IsolationVerified", "Ready"} <= reference.conditions(ROOT)["Tenant"].keys()
    assert undocumented_conditions(ROOT) == []


def test_a_condition_that_is_not_documented_is_found(tmp_path: Path) -> None:
    known = '''"""Conditions."""
CONDITIONS: Mapping = MappingProxyType(
    {"Tenant": {"DatabaseReady": {"": "Rows.", "Made": "They are.", "Never": "Nobody says it."}, "Ready": {"": ""}}}
)
'''
    source = '''"""Conditions."""
def conditions_of():
    yield say("DatabaseReady", "Made", "they are")
    yield say("DatabaseReady", "False", "Lost", "they are not")
    yield say("QuotaReady", "Made", "no such type")
'''
    files = {"crds/src/hansa_crds/conditions.py": known, "core/src/hansa/tenants/conditions.py": source}
    root = made_up(made_up_root(tmp_path), files).root
    reference.write(root)
    assert undocumented_conditions(root) == [
        "DatabaseReady: Lost is not documented",
        "QuotaReady: Made is not documented",
        "DatabaseReady: Never is said by nobody",
        "Ready: no meaning",
    ]


def test_a_stale_page_is_found(tmp_path: Path) -> None:
    root = made_up_root(tmp_path)
    assert reference.stale(root) == [f"docs/reference/{name}.md" for name in ("errors", "settings", "conditions", "metrics")]
    reference.write(root)
    assert reference.stale(root) == []
    (root / "core/src/hansa/errors.py").write_text(ERRORS.replace('"late"', '"too_late"'))
    assert reference.stale(root) == ["docs/reference/errors.md"]


def test_an_error_inherits_what_it_does_not_say(tmp_path: Path) -> None:
    errors = reference.error_classes(made_up_root(tmp_path))
    assert [(error.name, error.depth, error.facts["code"], error.facts["status"]) for error in errors] == [
        ("Trouble", 0, "trouble", 500),
        ("Late", 1, "late", 500),
        ("Unnamed", 2, "late", 500),
    ]
    assert errors[1].text == "It came too late."


def test_an_error_tree_goes_on_in_another_distribution(tmp_path: Path) -> None:
    root = made_up_root(tmp_path)
    made_up(root, {"plugins/a/src/hansa_a/errors.py": '"""Errors."""\nclass Far(Late):\n    code = "far"\n'})
    assert [error.name for error in reference.error_classes(root)] == ["Trouble", "Late", "Unnamed", "Far"]
    assert undocumented_errors(root) == ["hansa_a.errors.Far: no docstring"]


def test_a_reason_given_at_a_call_is_found(tmp_path: Path) -> None:
    root = made_up_root(tmp_path)
    text = '"""Runtime."""\nraise RunFailed("no", code="limit_turns")\nFieldError("spec.x", "range", "too big")\nRunFailed("other")\n'
    made_up(root, {"core/src/hansa/turns.py": text})
    assert [(reason.call, reason.code) for reason in reference.reasons(root)] == [("FieldError", "range"), ("RunFailed", "limit_turns")]


def test_a_setting_without_a_docstring_is_found(tmp_path: Path) -> None:
    root = made_up_root(tmp_path)
    assert [(setting.variable, setting.text) for setting in reference.settings(root)] == [
        ("HANSA_REGION", "Name of the region."),
        ("HANSA_MUTE", ""),
    ]
    assert undocumented_settings(root) == ["HANSA_MUTE: no docstring"]


def test_a_variable_that_two_fields_read_is_found(tmp_path: Path) -> None:
    root = made_up_root(tmp_path)
    (root / "core/src/hansa/settings.py").write_text(SETTINGS.replace("HANSA_MUTE", "HANSA_REGION"))
    assert "HANSA_REGION: read twice" in undocumented_settings(root)
