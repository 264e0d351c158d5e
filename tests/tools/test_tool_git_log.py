"""git_log on real repositories: only listed ones, only refs, and no program that a repository names is run."""

import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from hansa_sdk import Effect, ToolFailed
from hansa_tools.git_log import git_log
from tools.conftest import Context


def _git(repository: Path, *arguments: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(repository.parent),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.com",
        "GIT_AUTHOR_DATE": "2026-01-02T03:04:05+00:00",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.com",
    }
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments], env=environment, check=True, capture_output=True, text=True, timeout=30
    )
    return done.stdout.strip()


def _repository(folder: Path, *subjects: str) -> Path:
    folder.mkdir()
    _git(folder, "init", "-q", "-b", "main")
    for subject in subjects:
        _git(folder, "commit", "-q", "--allow-empty", "-m", subject)
    return folder


@pytest.fixture
def listed(context: Context, tmp_path: Path) -> Context:
    """A context that lists one repository, `site`, of three commits."""
    repository = _repository(tmp_path / "repository", "first", "second\n\nwith a body", "thïrd")
    _git(repository, "tag", "v1", "HEAD~1")
    context.settings = {"git_repositories": f"site={repository}"}
    return context


async def test_the_last_commits_come_newest_first(listed: Context, tmp_path: Path) -> None:
    answer = await listed.run(git_log, repository="site", count=2)
    assert [(commit["subject"], commit["author"], commit["date"]) for commit in answer["commits"]] == [
        ("thïrd", "Ada", "2026-01-02T03:04:05+00:00"),
        ("second", "Ada", "2026-01-02T03:04:05+00:00"),
    ]
    assert answer["commits"][0]["commit"] == _git(tmp_path / "repository", "rev-parse", "HEAD")
    assert git_log.effect is Effect.READ


@pytest.mark.parametrize(("ref", "subjects"), [("main", ["thïrd", "second", "first"]), ("v1", ["second", "first"]), ("main~2", ["first"])])
async def test_a_ref_says_where_to_begin(listed: Context, ref: str, subjects: list[str]) -> None:
    assert [commit["subject"] for commit in (await listed.run(git_log, repository="site", ref=ref))["commits"]] == subjects


@pytest.mark.parametrize(
    "ref",
    ["--output=/tmp/x", "-1", "main..v1", "main:file", "@{1}", "a b", "main\n", "main\0", "^main", ":/first", "main --all", "main~999999"],
)
async def test_what_is_no_plain_ref_is_refused(listed: Context, ref: str) -> None:
    with pytest.raises(ToolFailed, match="is not the name of a branch"):
        await listed.run(git_log, repository="site", ref=ref)


async def test_an_unknown_ref_is_named(listed: Context) -> None:
    with pytest.raises(ToolFailed, match="no branch, tag or commit 'gone'"):
        await listed.run(git_log, repository="site", ref="gone")


@pytest.mark.parametrize("name", ["other", "../repository", "/", "site/"])
async def test_only_listed_repositories_are_read(listed: Context, name: str) -> None:
    with pytest.raises(ToolFailed, match="there are: site"):
        await listed.run(git_log, repository=name)


async def test_without_a_list_there_is_no_repository(context: Context) -> None:
    with pytest.raises(ToolFailed) as refused:
        await context.run(git_log, repository="site")
    assert "HANSA_TOOL_GIT_REPOSITORIES" in refused.value.hint


@pytest.mark.parametrize("setting", ["site", "=/path", "site=relative", "site="])
async def test_a_list_that_cannot_be_read_is_said(context: Context, setting: str) -> None:
    context.settings = {"git_repositories": setting}
    with pytest.raises(ToolFailed, match="can't be read"):
        await context.run(git_log, repository="site")


async def test_a_folder_inside_a_repository_is_none_itself(listed: Context, tmp_path: Path) -> None:
    inside = tmp_path / "repository" / "inside"
    inside.mkdir()
    listed.settings = {"git_repositories": f"inside={inside},gone={tmp_path / 'gone'}"}
    for name in ("inside", "gone"):
        with pytest.raises(ToolFailed, match="is not a git repository") as refused:
            await listed.run(git_log, repository=name)
        assert str(tmp_path) not in refused.value.detail


async def test_an_empty_repository_is_said_to_be_empty(context: Context, tmp_path: Path) -> None:
    context.settings = {"git_repositories": f"new={_repository(tmp_path / 'new')}"}
    with pytest.raises(ToolFailed, match="no commits yet"):
        await context.run(git_log, repository="new")


async def test_another_owner_is_no_hindrance_to_what_the_operator_listed(listed: Context, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        for path in (tmp_path / "repository", tmp_path / "repository" / ".git"):
            os.chown(path, 12345, 12345)
    assert len((await listed.run(git_log, repository="site"))["commits"]) == 3


async def test_no_program_that_a_repository_names_is_run(listed: Context, tmp_path: Path) -> None:
    repository, mark = tmp_path / "repository", tmp_path / "was-run"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho run >> {mark}\nexit 1\n")
    program.chmod(0o755)
    tree = _git(repository, "rev-parse", "HEAD^{tree}")
    people = "author A <a@example.com> 1 +0000\ncommitter A <a@example.com> 1 +0000\n"
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n"
    signed = f"tree {tree}\n{people}{signature}\nsigned\n"
    (tmp_path / "commit").write_text(signed)
    commit = _git(repository, "hash-object", "-t", "commit", "-w", str(tmp_path / "commit"))
    _git(repository, "update-ref", "refs/heads/main", commit)
    for setting in (
        "core.fsmonitor",
        "core.pager",
        "pager.log",
        "diff.external",
        "gpg.program",
        "core.sshCommand",
        "core.alternateRefsCommand",
    ):
        _git(repository, "config", setting, str(program))
    _git(repository, "config", "log.showSignature", "true")
    _git(repository, "log")
    assert mark.exists(), "plain git runs it: else this test could not fail"
    mark.unlink()
    assert [row["subject"] for row in (await listed.run(git_log, repository="site"))["commits"]] == ["signed"]
    assert not mark.exists()


async def test_too_much_output_is_refused(listed: Context, tmp_path: Path) -> None:
    message = tmp_path / "message"
    message.write_text("x" * 300_000)
    _git(tmp_path / "repository", "commit", "-q", "--allow-empty", "-F", str(message))
    with pytest.raises(ToolFailed, match="more than"):
        await listed.run(git_log, repository="site")


@pytest.mark.parametrize("count", [0, 101, "3", 2.5, True])
async def test_the_count_is_bounded(listed: Context, count: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        await listed.run(git_log, repository="site", count=count)
