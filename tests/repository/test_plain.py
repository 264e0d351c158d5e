"""A folder without Git: what is seen of it, and that nothing outside of it is."""

import os
from pathlib import Path

import pytest

from hansa.apply.repository.failures import Reason, RepositoryAway, RepositoryRefused
from hansa.apply.repository.location import locate
from hansa.apply.repository.model import Unreadable
from hansa.apply.repository.plain import FolderSource
from repository.repos import agent


def folder(tmp_path: Path) -> tuple[Path, FolderSource]:
    found = tmp_path / "manifests"
    (found / "sub").mkdir(parents=True)
    (found / "sub/a.yaml").write_text(agent("a"))
    (found / ".hidden.yaml").write_text(agent("hidden"))
    return found, FolderSource(locate(str(found)))


async def test_its_commit_changes_with_its_contents_alone(tmp_path: Path) -> None:
    where, source = folder(tmp_path)
    first = await source.look()
    (where / "sub/a.yaml").touch()
    assert await source.look() == first
    (where / "sub/a.yaml").write_text(agent("b"))
    second = await source.look()
    assert second != first
    tree = await source.tree(second)
    assert list(tree.files) == ["sub/a.yaml"]
    assert await source.read("sub/a.yaml", tree.files["sub/a.yaml"]) == agent("b").encode()
    (where / "sub/a.yaml").write_text(agent("c"))
    with pytest.raises(RepositoryAway):
        await source.read("sub/a.yaml", tree.files["sub/a.yaml"])


async def test_links_are_followed_within_the_folder_and_nowhere_else(tmp_path: Path) -> None:
    where, source = folder(tmp_path)
    (tmp_path / "outside.yaml").write_text(agent("outside"))
    (where / "out.yaml").symlink_to(tmp_path / "outside.yaml")
    (where / "in.yaml").symlink_to("sub/a.yaml")
    (where / "gone.yaml").symlink_to("nowhere")
    (where / "loop").symlink_to(".")
    (where / "lost").symlink_to("unmounted")
    tree = await source.tree(await source.look())
    assert sorted(tree.files) == ["gone.yaml", "in.yaml", "loop", "lost", "out.yaml", "sub/a.yaml"]
    assert [path for path, file in tree.files.items() if file.shut] == ["loop", "lost"], "a folder may have stood there"
    assert await source.read("in.yaml", tree.files["in.yaml"]) == agent("a").encode()
    for path in ("out.yaml", "gone.yaml"):
        with pytest.raises(Unreadable):
            await source.read(path, tree.files[path])


async def test_a_file_whose_name_nobody_can_read_holds_up_no_other(tmp_path: Path) -> None:
    where, source = folder(tmp_path)
    (where / os.fsdecode(b"caf\xe9.yaml")).write_text(agent("cafe"))
    tree = await source.tree(await source.look())
    assert sorted(tree.files) == ["caf\ufffd.yaml", "sub/a.yaml"]
    with pytest.raises(Unreadable, match="UTF-8"):
        await source.read("caf\ufffd.yaml", tree.files["caf\ufffd.yaml"])


async def test_a_folder_that_is_gone_is_not_an_empty_one(tmp_path: Path) -> None:
    where, source = folder(tmp_path)
    await source.look()
    where.rename(tmp_path / "moved")
    with pytest.raises(RepositoryRefused) as caught:
        await source.look()
    assert caught.value.reason == Reason.GONE
