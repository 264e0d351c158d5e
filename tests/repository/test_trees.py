"""What is read of a repository, and what is never read: real repositories of this machine."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hansa.apply.manifests import MAX_BYTES
from hansa.apply.repository.failures import Reason, RepositoryAway, RepositoryRefused
from hansa.apply.repository.git import GitSource, open_git
from hansa.apply.repository.location import locate
from hansa.apply.repository.model import MAX_FILES, File, Tree, Unreadable
from hansa.apply.repository.settings import GitSettings
from hansa.apply.repository.trees import bounded
from repository.repos import GitRepo, agent, agents


@asynccontextmanager
async def opened(repo: GitRepo, *, ref: str = "main", path: str = "") -> AsyncIterator[GitSource]:
    async with open_git(locate(str(repo.folder)), GitSettings(), ref=ref, path=path) as source:
        yield source


async def tree_of(source: GitSource, known: Tree | None = None, since: str = "") -> Tree:
    return await source.tree(await source.look(), known=known, since=since)


async def test_manifests_are_found_below_the_path_and_nothing_else(repo: GitRepo) -> None:
    repo.commit(
        {
            "tenants/acme/a.yaml": agent("a"),
            "tenants/b.json": "{}",
            "tenants/readme.md": "no manifest",
            "tenants/.hidden/c.yaml": agent("c"),
            "tenants/.d.yaml": agent("d"),
            "elsewhere/e.yaml": agent("e"),
        }
    )
    async with opened(repo, path="tenants") as source:
        tree = await tree_of(source)
        assert list(tree.files) == ["tenants/acme/a.yaml", "tenants/b.json"]
        assert await source.read("tenants/acme/a.yaml", tree.files["tenants/acme/a.yaml"]) == agent("a").encode()
        assert source.origin == f"file://{repo.folder}//tenants"


async def test_links_are_named_and_never_followed(repo: GitRepo, tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text(agent("secret"))
    (repo.folder / "agents").mkdir()
    (repo.folder / "agents/link.yaml").symlink_to(tmp_path / "secret.yaml")
    (repo.folder / "agents/folder").symlink_to(tmp_path)
    GitRepo(repo.folder / "agents/sub").commit(agents("of-another-repository"))
    repo.commit(agents("a"))
    async with opened(repo) as source:
        tree = await tree_of(source)
        assert sorted(tree.files) == ["agents/a.yaml", "agents/folder", "agents/link.yaml", "agents/sub"]
        assert [path for path, file in tree.files.items() if file.shut] == ["agents/folder", "agents/sub"]
        with pytest.raises(Unreadable, match="never followed"):
            await source.read("agents/link.yaml", tree.files["agents/link.yaml"])


async def test_a_file_that_is_too_large_is_not_read(repo: GitRepo) -> None:
    repo.commit({"big.yaml": b"#" * (MAX_BYTES + 1), "fits.yaml": b"#" * MAX_BYTES})
    async with opened(repo) as source:
        tree = await tree_of(source)
        with pytest.raises(Unreadable, match="larger than"):
            await source.read("big.yaml", tree.files["big.yaml"])
        assert len(await source.read("fits.yaml", tree.files["fits.yaml"])) == MAX_BYTES


async def test_of_two_commits_the_same_is_found_by_what_changed_as_by_reading_all(repo: GitRepo) -> None:
    repo.commit({**{f"t/{number}/a.yaml": agent(f"a{number}") for number in range(20)}, "t/keep.yaml": agent("keep")})
    async with opened(repo, path="t") as source:
        known = await tree_of(source)
        (repo.folder / "t/7/link.yaml").symlink_to("/etc/passwd")
        shutil.rmtree(repo.folder / "t/9")
        (repo.folder / "t/9").symlink_to("../elsewhere")
        repo.commit(
            {
                "t/0/a.yaml": None,
                "t/1/a.yaml": agent("a1", "Other."),
                "t/new/x.yml": agent("x"),
                "t/2/a.yaml": None,
                "t/2/b/c.yaml": agent("c2"),
            }
        )
        by_change, by_reading = await tree_of(source, known), await tree_of(source)
        assert by_change.files == by_reading.files
        changed = {path for path in known.files.keys() | by_change.files.keys() if known.files.get(path) != by_change.files.get(path)}
        assert changed == {"t/0/a.yaml", "t/1/a.yaml", "t/2/a.yaml", "t/2/b/c.yaml", "t/7/link.yaml", "t/9", "t/9/a.yaml", "t/new/x.yml"}


async def test_ten_thousand_files_are_listed_in_a_moment_and_more_than_the_most_are_refused(repo: GitRepo) -> None:
    repo.write({f"agents/{number // 100}/a{number}.yaml": agent(f"a{number}") for number in range(10_000)})
    repo.commit({})
    async with opened(repo) as source, asyncio.timeout(20):
        assert len((await tree_of(source)).files) == 10_000
    most = {f"a{number}.yaml": File("id") for number in range(MAX_FILES)}
    assert bounded(most) == most
    with pytest.raises(RepositoryRefused) as caught:
        bounded({**most, "one-more.yaml": File("id")})
    assert caught.value.reason == Reason.TOO_LARGE


async def test_each_state_of_a_repository_has_its_reason(repo: GitRepo, tmp_path: Path) -> None:
    with pytest.raises(RepositoryRefused) as empty:
        async with opened(repo) as source:
            await source.look()
    first = repo.commit(agents("a"))
    repo.git("tag", "-a", "v1", "-m", "one")
    refused: list[Reason] = [empty.value.reason]
    for folder, ref, path in (
        (repo.folder, "nowhere", ""),
        (repo.folder, "0" * 39 + "1", ""),
        (tmp_path / "gone", "main", ""),
        (tmp_path, "main", ""),
        (repo.folder, "main", "x"),
    ):
        with pytest.raises(RepositoryRefused) as caught:
            async with open_git(locate(str(folder)), GitSettings(), ref=ref, path=path) as source:
                await tree_of(source)
        refused.append(caught.value.reason)
    assert refused == [Reason.EMPTY, Reason.REF_MISSING, Reason.REF_MISSING, Reason.GONE, Reason.NOT_A_REPOSITORY, Reason.PATH_MISSING]
    for ref in ("", "main", "v1", "refs/heads/main", first):
        async with opened(repo, ref=ref) as source:
            assert (await tree_of(source)).commit == first


async def test_rewritten_and_unrelated_histories_are_told_and_followed(repo: GitRepo) -> None:
    repo.commit(agents("a"))
    second = repo.commit(agents("b"))
    async with opened(repo) as source:
        before = await tree_of(source)
        repo.commit(agents("c"))
        assert (await tree_of(source, before, second)).note == ""
        repo.git("reset", "--hard", "--quiet", "HEAD~2")
        repo.commit(agents("d"))
        forced = await tree_of(source, before, second)
        assert "history was rewritten" in forced.note
        assert sorted(forced.files) == ["agents/a.yaml", "agents/d.yaml"]
        repo.git("checkout", "--quiet", "--orphan", "other")
        repo.git("rm", "-rfq", ".")
        repo.commit(agents("e"))
        repo.git("branch", "--force", "main", "other")
        unrelated = await tree_of(source, forced, forced.commit)
        assert "history was rewritten" in unrelated.note
        assert sorted(unrelated.files) == ["agents/e.yaml"]


async def test_a_repository_that_is_half_there_is_damaged_and_gives_no_wrong_tree(repo: GitRepo) -> None:
    repo.commit(agents("a", "b"))
    tree = repo.git("rev-parse", "HEAD:agents")
    (repo.folder / ".git/objects" / tree[:2] / tree[2:]).unlink()
    async with opened(repo) as source:
        with pytest.raises(RepositoryAway) as caught:
            await tree_of(source)
    assert caught.value.reason == Reason.DAMAGED
    assert tree in caught.value.detail
