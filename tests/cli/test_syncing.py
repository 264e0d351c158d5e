"""`hansa validate`, `plan` and `sync` as typed, where no server is needed or none is there."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.command import Ended
from hansa.apply.model import Applied
from hansa.apply.repository.failures import Reason
from hansa.apply.sync.model import CONTROL_PLANE_AWAY, DELETION_REFUSED, FAILING, NO_MANIFESTS, REFUSED, SYNCED, Record, Report
from hansa.apply.sync.planning import Planned
from hansa.cli.application import main
from hansa.cli.planning import MOST_ROWS, markdown
from hansa.cli.syncing import exit_of
from hansa.errors import FieldError
from repository.repos import GitRepo, agent, agents


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """The command line, in this process, with an address where nobody listens."""
    monkeypatch.setenv("HANSA_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HANSA_API_KEY", "key-of-the-test")
    monkeypatch.chdir(tmp_path)

    def type_in(*words: str) -> Ended:
        capsys.readouterr()
        status, told = main(words), capsys.readouterr()
        return Ended(status, told.out, told.err)

    return type_in


def test_validate_needs_no_server_and_names_each_place(typed: Callable[..., Ended], tmp_path: Path) -> None:
    repo = GitRepo(tmp_path / "upstream")
    repo.commit(
        {**agents("a", "b"), "twin.yaml": agent("a"), "bad.yaml": "kind: Agent\n  x: [\n", "wrong.yaml": agent("c") + "  turns: 3\n"}
    )
    for words in (["upstream"], ["--git", "upstream", "--ref", "main"]):
        told = typed("validate", *words)
        assert told.status == 1
        for place in ("agents/a.yaml:4:9: metadata.name:", "twin.yaml:4:9: metadata.name:", "bad.yaml:2:4:", "wrong.yaml:9:3: spec.turns:"):
            assert place in told.err, told.err
    shown = json.loads(typed("validate", "upstream", "--output", "json").out)
    assert (shown["files"], len(shown["errors"])) == (5, 4)
    repo.commit({"twin.yaml": None, "bad.yaml": None, "wrong.yaml": None})
    assert typed("validate", "upstream").status == 0
    assert typed("validate", "--git", "upstream", "--path", "agents", "--output", "markdown").status == 0


def test_a_password_in_an_address_is_never_repeated(typed: Callable[..., Ended]) -> None:
    for command in ("validate", "plan", "diff", "sync"):
        told = typed(command, "--git", "https://ada:s3cr3t@git.example.org/agents.git")
        assert (told.status, "s3cr3t" in told.out + told.err) == (65, False)


@pytest.mark.parametrize(
    "words",
    [
        [],
        [".", "--git", "x"],
        [".", "--ref", "main"],
        [".", "--once", "--webhook", "127.0.0.1:0"],
        [".", "--webhook-secret-file", "x"],
        [".", "--webhook", "nowhere"],
        [".", "--interval", "0"],
        ["--git", "x", "--verify", "some"],
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_done(typed: Callable[..., Ended], words: list[str]) -> None:
    assert typed("sync", *words).status == 2


def test_a_pass_says_by_its_status_how_it_went() -> None:
    states = {
        SYNCED: 0,
        FAILING: 1,
        DELETION_REFUSED: 1,
        NO_MANIFESTS: 1,
        CONTROL_PLANE_AWAY: 69,
        Reason.UNREACHABLE: 69,
        REFUSED: 77,
        Reason.SIGNATURE_INVALID: 65,
        Reason.GONE: 65,
    }
    assert {state: exit_of(Report(record=Record(origin="o", state=str(state)))) for state in states} == states


def test_without_a_control_plane_a_pass_ends_and_says_so(typed: Callable[..., Ended], tmp_path: Path) -> None:
    GitRepo(tmp_path / "upstream").commit(agents("a"))
    told = typed("sync", "--git", "upstream", "--once")
    assert (told.status, "ControlPlaneAway" in told.err) == (69, True)


def test_markdown_of_a_plan_holds_no_markup_of_others_and_fits_into_a_comment() -> None:
    evil = "](http://evil.example) <img src=x> | @everyone `x`\n## head"
    outcome = Applied("Agent", "a", "failed", errors=(FieldError("spec", "type", evil, file="a.yaml", line=1, column=1),))
    text = markdown(Planned("https://git.example.org/a.git//", "c" * 40, (outcome,) * 3000, errors=(FieldError("", "x", evil),) * 3000))
    assert len(text) < 65_536
    assert 0 < text.count("| fail |") <= MOST_ROWS
    for marked in (r"(?<!\\)<img", r"(?<!\\)\]\(", "@everyone", r"\n## head", r"(?<!\\)\| @"):
        assert re.search(marked, text) is None, marked
